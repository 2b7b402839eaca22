"""How fast a step is: ours against its plain twin, TRL's GRPOTrainer, SFT and the FLOP bound, side by side in one run.

    python -m tests.bench.step --json bench.json                                  # everything (TRL: the extra `bench`)
    python -m tests.bench.step --json bench.json --shape small --contender ours --repeat 1

step.py      the command: runs every measurement in its own process, in rounds, and writes JSON
plan.py      which contenders are measured on which shapes, and the record of a measurement
shapes.py    the models, documents and thoughts that are timed; material.py makes them
bound.py     the floating-point operations that no implementation can save; rate.py measures how fast the machine does them
worker.py    one process: one contender, one shape, a few steps, by phase on the clock of clock.py
ours.py, trl_step.py, likelihood_step.py    the contenders
report.py    medians and the tables
"""
