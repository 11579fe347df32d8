"""Tables and figures of the paper from finished runs: Markdown, one page of HTML, PNG and CSV.

Of a run directory that is named itself, the run's own page (index.html) is written anew, too.
"""

import argparse
from collections.abc import Sequence

from zskt_dist import logs, ray_job
from zskt_dist.errors import UserError, guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zskt_dist.report", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="FOLDER", help="run directories, folders of them, or their URIs")
    parser.add_argument("--experiment", action="append", default=[], help="also the runs of this MLflow experiment")
    parser.add_argument("--uri", help="MLflow store; default: MLFLOW_TRACKING_URI, else mlflow.db")
    parser.add_argument("--out", default="runs/report", metavar="FOLDER", help="default: runs/report")
    parser.add_argument("--title", default="Zero-shot knowledge transfer", help="of the page")
    parser.add_argument("--no-mlflow", action="store_true", help="do not log the report to MLflow")
    options = logs.parse(parser, argv)
    return guarded(lambda: _report(options))


def _report(options: argparse.Namespace) -> None:
    from zskt_dist.extras import EXTRAS, require

    require("zskt report", *EXTRAS["report"])
    if options.experiment:
        require("--experiment", "mlflow")

    from zskt_dist.report.page import write_report
    from zskt_dist.report.run_pages import write_pages
    from zskt_dist.report.runs import find_runs, group_runs
    from zskt_dist.report.store import fetch_runs, log_report, stored_runs
    from zskt_dist.runs.locations import local_folder

    out, runs = local_folder(options.out), [ray_job.lasting(location, "FOLDER") for location in options.runs]
    pages = write_pages(runs)
    for page in pages:
        print(f"page: {page}")
    named = [place for location in runs for place in stored_runs(location)]
    with fetch_runs(options.uri, options.experiment) as fetched:
        groups = group_runs(find_runs([*named, *fetched.folders], lent=fetched.downloads))
        if not groups and pages:
            return  # runs that no table has, as of students of pseudo-data
        if not groups:
            where = ", ".join(map(str, [*runs, *options.experiment])) or "the command line (give a folder: runs)"
            raise UserError(f"no finished run in {where}")
        write_report(groups, out, options.title)
    if not options.no_mlflow:
        log_report(options.uri, out, options.title)
    print(f"{sum(len(group.runs) for group in groups)} runs: {out / 'report.md'}, {out / 'report.html'}")


if __name__ == "__main__":
    raise SystemExit(main())
