"""Kubeflow face of the comparison."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Output

from components.images import image


@dsl.component(base_image=image("eval"), install_kfp_package=False)
def compare(
    settings: dict,
    publish_uri: str,
    code_digest: str,
    base_pretrained: Input[Dataset],
    base_sft: Input[Dataset],
    base_rlvr: Input[Dataset],
    cpt_pretrained: Input[Dataset],
    cpt_sft: Input[Dataset],
    cpt_rlvr: Input[Dataset],
    rlp_pretrained: Input[Dataset],
    rlp_sft: Input[Dataset],
    rlp_rlvr: Input[Dataset],
    comparison: Output[Dataset],
    page: Output[HTML],
):
    """Compare the arms after every stage: verdicts, tables and the page."""
    import shutil
    from pathlib import Path

    from components.frame import run_component

    inputs = {
        "base_pretrained": Path(base_pretrained.path),
        "base_sft": Path(base_sft.path),
        "base_rlvr": Path(base_rlvr.path),
        "cpt_pretrained": Path(cpt_pretrained.path),
        "cpt_sft": Path(cpt_sft.path),
        "cpt_rlvr": Path(cpt_rlvr.path),
        "rlp_pretrained": Path(rlp_pretrained.path),
        "rlp_sft": Path(rlp_sft.path),
        "rlp_rlvr": Path(rlp_rlvr.path),
    }
    run_component("compare", settings, inputs, Path(comparison.path), publish_uri)
    shutil.copyfile(Path(comparison.path) / "index.html", page.path)
