"""Where a model's files are, and what is in them."""

from __future__ import annotations

import os
from pathlib import Path

from rbkit.errors import InputError
from rbkit.files import fingerprint, sha256_of_file

# All that sentence-transformers and transformers read, and nothing that needs unpickling.
_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def content_of(folder: Path, *, code: bool = False) -> str:
    """Fingerprint of weights, configuration and tokenizer: 0.1 s per 100 MB.

    Parameters
    ----------
    folder : Path
    code : bool
        Python files count too (``trust_remote_code``).
    """
    patterns = (*_MODEL_FILES, "*.py") if code else _MODEL_FILES
    files = sorted({path for pattern in patterns for path in folder.rglob(pattern)})
    return fingerprint(
        f"{path.relative_to(folder).as_posix()} {sha256_of_file(path)}" for path in files
    )


def resolve_model(model: str, *, trust_remote_code: bool = False) -> Path:
    """Return the folder of a model given as ``"minilm"``, a path or a hub id.

    Raises
    ------
    InputError
        The folder does not exist, or the hub (or its cache) has no such model.
    """
    if model == "minilm":
        from rbkit.data.assets import model_folder

        return Path(model_folder("minilm"))
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return folder
    if (
        folder.is_dir()
        or folder.is_absolute()
        or model.startswith((".", "~"))
        or os.sep * 2 in model
    ):
        what = "no model in this folder (neither modules.json nor config.json)"
        raise InputError(model, what, "give a folder written by save_pretrained, or a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = [*_MODEL_FILES, *(["*.py"] if trust_remote_code else [])]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
        what = f"neither a folder nor a model that the hub or its cache gives ({error})"
        remedy = 'check the name and the connection, or use "minilm" or "tfidf"'
        raise InputError(model, what, remedy) from error
