"""Shell form of the stage; see components/frame.py."""

from components.frame import main

raise SystemExit(main("ablate"))
