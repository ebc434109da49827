"""Writes the table of storms in README.md beside this file from the results `seed-*.json`: `python docs/chaos/table.py`."""

import json
from pathlib import Path

HERE = Path(__file__).parent
MARK = "## Storms\n"
COLUMNS = (
    "Seed",
    "Minutes",
    "Strikes",
    "Kinds",
    "Runs",
    "Events",
    "Executions",
    "Done again",
    "Good ingest after restart",
    "All over after",
    "Engine had",
    "Code of",
    "Verdict",
)


def row(result: dict[str, object]) -> tuple[str, ...]:
    """One storm."""
    struck, counts, figures, code = result["struck"], result["counts"], result["figures"], result["code"]
    assert isinstance(struck, dict)
    assert isinstance(counts, dict)
    assert isinstance(figures, dict)
    assert isinstance(code, dict)
    return (
        str(result["seed"]),
        f"{result['minutes']:g}",
        str(sum(struck.values())),
        str(sum(1 for n in struck.values() if n)),
        str(counts["runs"]),
        str(counts["events acknowledged"]),
        str(counts["executions"]),
        str(counts["executions repeated"]),
        f"{figures['first good ingest after a restart of the database under load, s']:.2f} s",
        f"{figures['seconds until everything had ended']:.0f} s",
        f"{figures['of which the engine had the machine, s']:.0f} s",
        str(code.get("at", ""))[:16].replace("T", " "),
        str(result["verdict"]),
    )


def main() -> None:
    """Write the table."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("seed-*.json"))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(row, results))]
    readme = HERE / "README.md"
    head, _, _ = readme.read_text(encoding="utf-8").partition(MARK)
    note = (HERE / "found.md").read_text(encoding="utf-8") if (HERE / "found.md").exists() else ""
    readme.write_text(head + MARK + "\n" + "\n".join(lines) + "\n" + note, encoding="utf-8")


if __name__ == "__main__":
    main()
