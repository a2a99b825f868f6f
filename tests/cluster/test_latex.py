"""A paper's table in a TeX, where one is installed (texlive-latex-base, -recommended)."""

import shutil
import subprocess

import pytest

from tests.tune.results.test_table import SPEC, trained
from tune.results import TABLE_FORMATS, make_paper_table

pytestmark = pytest.mark.cluster

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
\input{table}
\end{document}
"""


def test_the_table_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    systems = {("MAGT", data): trained(0.8, 1) for data in "AB"}
    systems |= {("bad_one", data): trained(0.4, 2) for data in "AB"}
    table = make_paper_table(SPEC, systems, [r"50 % of a_b & c\d ± {e} ~ ^ # $"], num_draws=100)
    (tmp_path / "table.tex").write_text(TABLE_FORMATS["tex"](table))
    (tmp_path / "paper.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Missing character" not in done.stdout
    assert (tmp_path / "paper.pdf").is_file()
