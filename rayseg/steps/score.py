"""The job that scores a run and writes its report."""

from rayseg.config import ScoreConfig
from rayseg.progress import activity
from rayseg.report.page import write_report
from rayseg.scores import warning_lines
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.scoring import score_run
from rayseg.steps.sources import read_ids, staleness
from rayseg.steps.table import score_table
from rayseg.store import KINDS, Folder, changed_source, lease, read_manifest


def score(config: ScoreConfig, engine: Engine) -> Outcome:
    """Scores all seeds and masks of the run into scores.json, and writes the report.

    The lines end with what is most likely wrong with the masks of a class, and the page.
    """
    run_folder = Folder(config.run)
    read_manifest(run_folder / "manifest").select(config.split)
    opened = engine.open(config.address, config.run)
    with lease(run_folder, "score"), activity("scores"), opened:
        scored = score_run(run_folder, config, engine, read_ids(config.ids))
    stale = _stale(run_folder)
    lines = score_table(scored.entries) + stale
    if scored.skipped:
        id_ = min(scored.skipped)
        number = len(scored.skipped)
        lines.append(f"not scored: {number} of bad truth, such as {id_}: {scored.skipped[id_]}")
    for name, entry in scored.entries.items():
        if entry.get("images_left_out"):
            whole = entry["images"] + entry["images_left_out"]
            lines.append(
                f"{name}: judged on {entry['images']} of {whole} images; the others have no result"
            )
        if "trained_on" in entry:
            own, full = (entry["trained_on"][key] or "unknown" for key in ("images", "full"))
            lines.append(
                f"{name}: its share of full supervision is of networks that were trained on other "
                f"images, {own} and {full} of them"
            )
    lines += warning_lines(scored.judged)
    with activity("report"):
        page = write_report(run_folder, config.split, val_split=config.val_split)
    lines.append(f"report: {page}")
    return Outcome(lines, frozenset(scored.skipped), left_out=len(stale))


def _stale(run_folder: Folder) -> list[str]:
    """Which of the folders that are scored do not fit what they were made from any more."""
    places = dict.fromkeys(kind.folder for kind in KINDS.values() if kind.scored)
    names = [f"{place}/{name}" for place in places for name in (run_folder / place).folders()]
    found = {name: staleness(run_folder, run_folder / name) for name in names}
    lines = [f"stale: {name} {why}" for name, why in found.items() if why]
    if changed := changed_source(run_folder / "manifest"):
        lines.insert(0, f"stale: {changed} has changed since `rayseg prepare` read it")
    return lines
