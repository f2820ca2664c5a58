"""Give a phantom cohort the map of its veins as a second channel, which no scan has.

A network that is told where the veins are shows what bounds one that is not (docs/phantom.md). The cohort must have
been made with ``--extras veins``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from arguments import dataset_name, print_error
from phantom.files import cannot_write, make_folder
from tqdm import tqdm

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io

COPIED = ("imagesTr", "labelsTr", "metadata", "cases.csv")
"""What the new data set shares with the cohort."""
CHANNELS = {"0": "CE-MR", "1": "veins"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        description="Copy a phantom cohort, with the map of its veins as a second channel.",
        epilog="example: python tools/vein_oracle.py --root . --dataset Phantom --into PhantomVeins",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder that contains datasets_raw/")
    parser.add_argument("--dataset", type=dataset_name, required=True, help="cohort, made with --extras veins")
    parser.add_argument("--into", type=dataset_name, required=True, help="name of the new data set")
    options = parser.parse_args(arguments)
    try:
        print(add_vein_channel(options.root, options.dataset, options.into))
    except (DvtError, OSError) as error:
        print_error("vein_oracle", error)
        return 2
    return 0


def add_vein_channel(root: Path, dataset: str, into: str) -> Path:
    """Write ``root/datasets_raw/into`` and return that folder; it appears only when it is complete.

    Raises:
        DvtError: if the cohort has no maps of veins, or the new folder exists.
        OSError: if a file cannot be read or written.
    """
    source, target = (Path(root) / "datasets_raw" / name for name in (dataset, into))
    images = sorted((source / "imagesTr").glob("[!.]*_0000.nii.gz"))
    maps = [source / "veins" / image.name.replace("_0000", "") for image in images]
    if not images or not (source / "dataset.json").is_file():
        raise DvtError(f"{source}: expected a phantom cohort with imagesTr and dataset.json. Make one there first.")
    if missing := [path for path in maps if not path.is_file()]:
        raise DvtError(f"{missing[0]}: not found. Make the cohort again with --extras veins.")
    if target.exists():
        raise DvtError(f"{target} already exists. Choose another --into.")
    make_folder(target.parent, "--root")
    with tempfile.TemporaryDirectory(prefix=f".{into}_", dir=target.parent) as scratch:
        draft = Path(scratch) / into
        try:
            _fill(draft, source, maps)
            draft.rename(target)
        except OSError as error:
            raise cannot_write(target, error, "--root") from error
    return target


def _fill(draft: Path, source: Path, maps: list[Path]) -> None:
    draft.mkdir()
    for name in COPIED:
        (shutil.copytree if (source / name).is_dir() else shutil.copy2)(source / name, draft / name)
    for path in tqdm(maps, desc=draft.name, unit="case"):
        veins, grid = volume_io.read(path)
        channel = draft / "imagesTr" / path.name.replace(".nii.gz", "_0001.nii.gz")
        volume_io.write_image(channel, (veins > 0).astype(np.int16), grid)
    content = json.loads((source / "dataset.json").read_text())
    content |= {"name": draft.name, "channel_names": CHANNELS}
    content["description"] += ", the map of veins as a second channel"
    (draft / "dataset.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
