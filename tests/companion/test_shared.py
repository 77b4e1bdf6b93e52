"""What several notebooks call."""

import shutil

import pandas as pd
from written_runs import write_run

from companion.shared import write_terms
from mmsa_lib.experiments import files
from mmsa_lib.experiments.terms import TERM_COLUMNS


def test_terms_of_all_runs_are_kept_and_points_of_sweeps_are_no_runs(tmp_path):
    for folder in ("main", "ablations"):
        run_id = write_run(tmp_path / folder, "self_mm", 1)
        rows = [("train", "task", 1.0, 0.9, 0.4, 1.0), ("train", "labels", 1.0, 0.1, 0.2, 0.5)]
        files.write_table(tmp_path / folder / run_id / files.TERMS, pd.DataFrame(rows, columns=list(TERM_COLUMNS)))
        point = tmp_path / folder / "sweep" / "0123456789ab"
        point.mkdir(parents=True)
        (point / files.DONE).write_text("0123456789ab")
    shutil.move(tmp_path / "main", tmp_path.with_name("elsewhere"))
    (tmp_path / "main").symlink_to(tmp_path.with_name("elsewhere"))
    written = write_terms(tmp_path, tmp_path)
    assert pd.read_csv(written)[["method", "term", "share"]].to_numpy().tolist() == [
        ["self_mm", "task", 0.9], ["self_mm", "labels", 0.1],
    ]  # fmt: skip
