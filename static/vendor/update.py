"""Vendor the third-party browser files again, from npm, at the versions written here.

    python static/vendor/update.py [--check]

Needs `npm` on the path; it asks whatever registry npm is set up with. `--check` downloads nothing: it compares the
files in place with the SHA-256 sums in manifest.json and ends with 1 when one differs.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

#: (package, version, folder below the repository, files as package path → name in the folder)
PACKAGES = (
    (
        "htmx.org",
        "4.0.1",
        "static/vendor/htmx-4.0.1",
        {
            "dist/htmx.min.js": "htmx.min.js",
            "dist/ext/hx-sse.min.js": "hx-sse.min.js",
            "dist/ext/hx-preload.min.js": "hx-preload.min.js",
            "LICENSE": "LICENSE",
        },
    ),
    (
        "axe-core",
        "4.14.1",
        "tests/vendor/axe-core-4.14.1",
        {"axe.min.js": "axe.min.js", "LICENSE": "LICENSE", "LICENSE-3RD-PARTY.txt": "LICENSE-3RD-PARTY.txt"},
    ),
)
#: A comment that points at a source map we do not ship would make browsers ask for it.
SOURCE_MAP = b"\n//# sourceMappingURL="


def main() -> int:
    """Fetch, copy and write the manifests; or only compare. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return check()
    for name, version, folder, files in PACKAGES:
        vendor(name, version, ROOT / folder, files)
    return 0


def vendor(name: str, version: str, target: Path, files: dict[str, str]) -> None:
    """Pack one package into a scratch folder, copy the named files and write their sums beside them."""
    with tempfile.TemporaryDirectory() as scratch:
        packed = subprocess.run(
            ["npm", "pack", f"{name}@{version}", "--silent"], cwd=scratch, check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        with tarfile.open(Path(scratch) / packed) as archive:
            archive.extractall(scratch, filter="data")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        sums = {}
        for source, to in files.items():
            content = (Path(scratch) / "package" / source).read_bytes()
            if to.endswith(".js"):
                content = content.split(SOURCE_MAP)[0].rstrip() + b"\n"
            (target / to).write_bytes(content)
            sums[to] = hashlib.sha256(content).hexdigest()
    manifest = {"package": name, "version": version, "sha256": sums}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def check() -> int:
    """Name every vendored file that differs from its manifest; 1 when there is one."""
    bad = [
        f"{folder}/{name}"
        for _, _, folder, _ in PACKAGES
        for name, expected in json.loads((ROOT / folder / "manifest.json").read_text(encoding="utf-8"))[
            "sha256"
        ].items()
        if hashlib.sha256((ROOT / folder / name).read_bytes()).hexdigest() != expected
    ]
    for path in bad:
        print(f"{path} is not the file the manifest names")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
