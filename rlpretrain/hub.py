"""What the Hugging Face hub says of a data set or a model before it is read: there, at that revision, open to this user."""

import re
from pathlib import Path
from typing import Literal

from rlpretrain.data.failures import one_line
from rlpretrain.errors import UserError

Kind = Literal["dataset", "model"]
_WORDS = {"dataset": "data set", "model": "model"}
_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether a model's or tokenizer's name is one of the hub: no folder here, nothing built in, packaged or stored."""
    return _ID.fullmatch(name) is not None and not Path(name).exists()


def check_repository(kind: Kind, name: str, revision: str | None, where: str) -> str:
    """The commit of ``revision``; UserError, naming ``where``, when the hub has no such thing, keeps it, or is out of reach."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{_WORDS[kind]} {name}"
    try:
        HfApi().auth_check(name, repo_type=kind)  # what a gated repository is about is public, its files are not
        return str(HfApi().repo_info(name, repo_type=kind, revision=revision).sha)
    except GatedRepoError:
        raise UserError(f"{where}: {gated(what)}") from None
    except RevisionNotFoundError:
        raise UserError(f"{where}: {what} has no revision {revision}; give a commit or tag of its page") from None
    except (RepositoryNotFoundError, HFValidationError):
        here = ", and there is no such folder" if kind == "model" else ""
        raise UserError(
            f"{where}: the hub has no {what}{here}; mend the id, or set HF_TOKEN if it is private"
        ) from None
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise UserError(f"{where}: the hub refuses HF_TOKEN for {what}; set one that may read it") from None
        raise _unreachable(what, where, error) from None
    except Exception as error:  # httpx's, the offline mode's: all mean that nobody answers
        raise _unreachable(what, where, error) from None


def gated(what: str) -> str:
    """What there is to do about a gated repository."""
    return f"{what} is gated; accept its terms on its page, then set HF_TOKEN to a token that may read it"


def is_cached(name: str, revision: str | None) -> bool:
    """Whether a model of the hub lies in its client's cache, so that it can be loaded without the hub."""
    return cached_commit(name, revision, "config.json") is not None


def cached_commit(name: str, revision: str | None, *files: str) -> str | None:
    """The commit that ``revision`` was when a model of the hub was fetched; None unless one of its ``files`` was."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(name, file, revision=revision) for file in files)
    return next((Path(path).parent.name for path in found if isinstance(path, str)), None)  # snapshots/COMMIT/FILE


def _unreachable(what: str, where: str, error: Exception) -> UserError:
    return UserError(
        f"{where}: {what} is read from the Hugging Face hub, which cannot be reached ({one_line(error)}); "
        "run `python -m pipelines mirror` where it can be, then give --mirror"
    )
