"""Whole experiments: their runs read back."""

from pathlib import Path

from zskt_dist.tracking.mlflow.store import connect


def download_runs(uri: str, experiment: str, folder: Path) -> list[Path] | None:
    """Run directories of an experiment: those on this machine as they are, others from their artifacts.

    Returns:
        None where there is no such experiment.

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    folders = []
    for run in client.search_runs([found.experiment_id], max_results=50_000):
        here = Path(run.data.tags.get("run_directory", ""))
        if (here / "result.json").exists():
            folders.append(here)
        elif any(item.path == "result.json" for item in client.list_artifacts(run.info.run_id)):
            target = folder / experiment / run.info.run_id
            target.mkdir(parents=True)
            client.download_artifacts(run.info.run_id, "", str(target))
            (target / "figures").mkdir(exist_ok=True)
            for picture in target.glob("*.png"):  # a run directory keeps them there
                picture.rename(target / "figures" / picture.name)
            folders.append(target)
    return folders
