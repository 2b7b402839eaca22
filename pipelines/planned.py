"""A plan in words and tables for the terminal."""

from rich.console import Console
from rich.table import Table

from pipelines.plan import DECODED_SHARE, GPUS, TRAINED_SHARE, Plan


def show_plan(plan: Plan, console: Console) -> None:
    """Print the plan: stages, the paper's rule, memory."""
    assert plan.size is not None
    hardware = plan.hardware
    where = "no GPUs given" if hardware is None else f"{hardware.gpus} x {hardware.gpu}, {hardware.nodes} nodes"
    table = Table(title=f"{_short(plan.size.parameters)} parameters; {where}", title_justify="left")
    table.add_column("stage")
    for heading in ("tokens read", "tokens sampled", "FLOPs", "stored", "hours", "GPU-hours"):
        table.add_column(heading, justify="right")
    totals = [0.0, 0.0]
    for stage in plan.stages:
        row = [_short(stage.read), _short(stage.sampled), _short(stage.flops), f"{_short(stage.bytes)}B"]
        hours = plan.hours(stage)
        if hours is not None:
            times = (hours, hours * plan.gpus(stage))
            totals = [total + time for total, time in zip(totals, times, strict=True)]
            row += [f"{time:.3g}" for time in times]
        table.add_row(stage.name, *row)
    table.add_section()
    sums = [sum(getattr(stage, name) for stage in plan.stages) for name in ("read", "sampled", "flops", "bytes")]
    table.add_row(
        "all",
        *map(_short, sums[:3]),
        f"{_short(sums[3])}B",
        *(f"{total:,.0f}" for total in totals if hardware is not None),
    )
    console.print(table)
    rule = plan.equal_compute_tokens
    console.print(
        f"CPT at equal compute, by the paper's rule T_flop = n * l_seq * bs * iters + T_inp: {_short(rule)} tokens, "
        f"{plan.equal_compute_steps:,} steps, {_short(6.0 * plan.size.parameters * rule)} FLOPs at 6 a parameter and token."
    )
    if hardware is not None:
        console.print(f"Memory a GPU in RLP, of {GPUS[hardware.gpu].memory / 1e9:.0f} GB:")
        for name, size in plan.memory.items():
            console.print(f"  {size / 1e9:8.1f} GB  {name}", highlight=False)
        console.print(f"  {sum(plan.memory.values()) / 1e9:8.1f} GB  together", highlight=False)
        if sum(plan.memory.values()) > GPUS[hardware.gpu].memory:
            console.print(
                "  That is more than the GPU has: lower rlp.thinking.rollout_batch or micro_batch, or add nodes."
            )
        console.print(
            f"Hours assume {TRAINED_SHARE:.0%} of the published FLOP/s in training and {DECODED_SHARE:.0%} of the memory's "
            "bandwidth in sampling, all stages one after another, an evaluation on one GPU; stages in parallel take less time. "
            "Lengths are counted at their most."
        )


def _short(value: float) -> str:
    """1.72e9 as 1.72 G."""
    for factor, unit in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} " if value else "0 "
