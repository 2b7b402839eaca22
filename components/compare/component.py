"""Kubeflow face of the comparison."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Output

from components.images import image


# An input an arm and stage: kfp takes lists of artifacts from loops alone. Arms that a run leaves out stay None.
@dsl.component(base_image=image("eval"), install_kfp_package=False)
def compare(
    settings: dict,
    publish_uri: str,
    code_digest: str,
    comparison: Output[Dataset],
    page: Output[HTML],
    base_pretrained: Input[Dataset] = None,
    base_sft: Input[Dataset] = None,
    base_rlvr: Input[Dataset] = None,
    cpt_pretrained: Input[Dataset] = None,
    cpt_sft: Input[Dataset] = None,
    cpt_rlvr: Input[Dataset] = None,
    cpt_flops_pretrained: Input[Dataset] = None,
    cpt_flops_sft: Input[Dataset] = None,
    cpt_flops_rlvr: Input[Dataset] = None,
    rlp_pretrained: Input[Dataset] = None,
    rlp_sft: Input[Dataset] = None,
    rlp_rlvr: Input[Dataset] = None,
    rpt_pretrained: Input[Dataset] = None,
    rpt_sft: Input[Dataset] = None,
    rpt_rlvr: Input[Dataset] = None,
):
    """Compare the arms after every stage: verdicts, tables and the page."""
    import shutil
    from pathlib import Path

    from components.frame import run_component

    given = {
        "base_pretrained": base_pretrained,
        "base_sft": base_sft,
        "base_rlvr": base_rlvr,
        "cpt_pretrained": cpt_pretrained,
        "cpt_sft": cpt_sft,
        "cpt_rlvr": cpt_rlvr,
        "cpt_flops_pretrained": cpt_flops_pretrained,
        "cpt_flops_sft": cpt_flops_sft,
        "cpt_flops_rlvr": cpt_flops_rlvr,
        "rlp_pretrained": rlp_pretrained,
        "rlp_sft": rlp_sft,
        "rlp_rlvr": rlp_rlvr,
        "rpt_pretrained": rpt_pretrained,
        "rpt_sft": rpt_sft,
        "rpt_rlvr": rpt_rlvr,
    }
    inputs = {name: Path(artifact.path) for name, artifact in given.items() if artifact is not None}
    run_component("compare", settings, inputs, Path(comparison.path), publish_uri)
    shutil.copyfile(Path(comparison.path) / "index.html", page.path)
