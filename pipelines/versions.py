"""What a pipeline's version and a run are called: by the code that they run, so that the same is never there twice."""

import hashlib
import subprocess
from pathlib import Path

from rlpretrain.artifacts import code_digest


def version_name(profile: str, text: str) -> str:
    """PROFILE-COMMIT-DIGEST; the digest is the compiled text's, which cluster, arms and changes enter as well."""
    return f"{profile}-{commit()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def commit() -> str:
    """Twelve digits of the commit, marked where files were changed since; the code's digest where there is no git."""
    root = Path(__file__).parents[1]
    command = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*command, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*command, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return code_digest()[:12]
    return head.stdout.strip() + ("-changed" if changed.stdout.strip() else "")
