"""python -m images build | push REGISTRY | base: what `make images` and `make push` call; see images/README.md."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir

from components.images import map_file
from images.build import NAMES, VARIANTS, build, push
from images.debian_base import import_debian
from images.engine import engine
from rlpretrain.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 after one line on a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        with engine(Path(gettempdir()) / "rlp-dockerd.log"):
            if options.command == "base":
                print(import_debian())
                return 0
            if options.command == "push":
                written = push(options.registry, map_file())
            else:
                names = options.image or NAMES
                written = build(
                    options.base, options.variant, options.tag, names, options.extras, options.models, map_file()
                )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, image in written.images.items():
        print(f"{name}: {image.pinned()}")
    print(f"{map_file()} is written; run `make compile` when the references in it have changed")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m images", description="build and push the images")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build images and write their references to the map")
    building.add_argument("--base", help="NAME@sha256:..., or an image imported here; default: the map's")
    building.add_argument("--variant", choices=VARIANTS, default="cuda", help="build of torch; default: cuda")
    building.add_argument("--tag", default="dev", help="tag of the images; default: dev")
    building.add_argument("--image", action="append", choices=NAMES, help="one image; repeatable; default: all")
    building.add_argument("--extras", default="", help="further extras of pyproject.toml, for data and train")
    building.add_argument("--models", default="", help="packages that hold weights, NAME==VERSION")
    commands.add_parser("base", help="import a Debian with Python 3.11 as a base, without a registry (root)")
    pushing = commands.add_parser("push", help="push the map's images and write their digests to it")
    pushing.add_argument("registry", help="HOST[:PORT][/PATH] to put before the images' names")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
