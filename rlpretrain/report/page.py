"""The comparison's page: verdicts, accuracy, tests, thoughts, training, cost, data, provenance."""

from rlpretrain.report.evaluations import ARMS
from rlpretrain.report.html import render
from rlpretrain.report.markdown import WARNED, note
from rlpretrain.report.plots import accuracy_chart, gap_chart, slice_charts
from rlpretrain.report.results import Model, Results
from rlpretrain.report.tables import (
    LEVEL,
    accuracy_table,
    cost_table,
    data_table,
    deciding_figure,
    gain_table,
    ledger_table,
    provenance_table,
    sampling_table,
    sections,
    tested_table,
    warnings_table,
)
from rlpretrain.report.training import Timings
from rlpretrain.report.training_plots import training_charts
from rlpretrain.report.words import ARM_NAMES, MARKS, STAGE_NAMES


def page(results: Results, times: Timings) -> str:
    """The page. The same results and times give the same bytes."""
    (_, headline), *ledger = sections(results.claims)
    accuracy, gap, slices = accuracy_chart(results), gap_chart(results), slice_charts(results)
    training = training_charts(results, times)
    curves = [chart for charts in training.values() for chart in charts]
    return render(
        "page.html.j2",
        [accuracy, *([gap] if gap else []), *slices, *curves],
        title=results.title,
        results=results,
        note=note(results),
        marks=MARKS,
        headline=[(claim, deciding_figure(claim)) for claim in headline],
        ledger=[(heading, claims, ledger_table(heading, claims)) for heading, claims in ledger],
        accuracy=accuracy,
        gap=gap,
        slices=slices,
        training={STAGE_NAMES[stage]: charts for stage, charts in training.items()},
        warned=WARNED,
        warning_rows=warnings_table(results),
        accuracy_rows=accuracy_table(results),
        sampling_rows=sampling_table(results),
        tested_rows=tested_table(results),
        tests=sum(len(difference.accuracy) for difference in results.differences),
        level=LEVEL,
        gain_rows=gain_table(results),
        cost_rows=cost_table(results, times),
        data_rows=data_table(results),
        provenance_rows=provenance_table(results),
        browser={
            "arms": {arm: ARM_NAMES[arm] for arm in ARMS},
            "positions": [position.model_dump(mode="json") for position in results.positions],
        },
        libraries=_libraries(results.models),
    )


def _libraries(models: list[Model]) -> list[str]:
    """Name and version of every library; several versions when the evaluations differ."""
    versions: dict[str, set[str]] = {}
    for model in models:
        for source in model.sources:
            for name, version in source.libraries.items():
                versions.setdefault(name, set()).add(version)
    return [f"{name} {' / '.join(sorted(found))}" for name, found in sorted(versions.items())]
