"""Packages with entry points, installed as pip does."""

from pathlib import Path


def install_package(site: Path, name: str, entry_points: str) -> Path:
    """Write a package's metadata into a folder, which must be on `sys.path`, and return the folder."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    return site
