"""README: its tree, commands, links, examples and tables match the project."""

import importlib
import json
import re
from pathlib import Path

import pytest

import fmnist_fast
from fmnist_fast.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def test_readme_tree_names_every_package_and_top_module():
    (tree,) = (text for _, text in BLOCKS if "reference.py" in text)
    named = set(re.findall(r"\b[\w]+\.py\b", tree))
    present = {path.name for path in ROOT.glob("*.py")}
    for folder in ("fmnist_fast", "kernels"):
        present |= {path.name for path in (ROOT / folder).glob("*.py")}
    assert named == present - {"__main__.py"}
    packages = {path.parent.name for path in (ROOT / "fmnist_fast").glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE)) >= packages


def test_readme_commands_and_options_exist(capsys):
    shell = "\n".join(text for language, text in BLOCKS if language == "sh")
    commands = set(
        re.findall(r"^(?:\S*/)?fmnist-fast ([a-z]+(?: fetch)?)", shell, flags=re.MULTILINE)
    )
    assert {"train", "evaluate", "predict", "info", "data fetch"} <= commands
    for command in commands:
        assert main([*command.split(), "--help"]) == 0
    options = set(re.findall(r" (--[a-z-]+)", shell)) - {"--editable"}
    for command in ("train", "sweep", "evaluate", "predict", "export"):
        main([command, "--help"])
    assert options <= set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))


def test_readme_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (train|test|app|bench|figures)\b", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_readme_python_examples_run(small_dataset, tmp_path, monkeypatch, capsys):
    example, estimator = (text for language, text in BLOCKS if language == "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fmnist_fast, "load_dataset", lambda: small_dataset)
    names: dict = {}
    exec(example, names)
    assert float(capsys.readouterr().out) == names["result"].test_accuracy
    assert names["model"].predict_proba(small_dataset.x_test[:3]).shape == (3, 10)
    exec(estimator, names)
    assert names["clf"].score(names["X"], names["y"]) > 0.9


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_readme_links_exist(link):
    assert (ROOT / link).exists()


def test_readme_measured_tables_match_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    names = ("markdown_tables", "readme_tables", "preset_table")
    markdown, tables, presets = (importlib.import_module(name) for name in names)
    report = tables.Report.from_json(json.loads(tables.RESULTS_FILE.read_text()))
    assert len(report.entries) > 5
    assert markdown.replace_block(README, tables.readme_block(report)) == README
    page = tables.BENCHMARKS_README.read_text()
    assert markdown.replace_block(page, tables.benchmarks_block(report)) == page
    block = presets.block(presets.measured_results())
    assert markdown.replace_block(README, block, "presets") == README
    card = markdown.MODEL_CARD.read_text()
    assert markdown.replace_block(card, []) != card
    changed = page.replace(f"{report.entries[0].seconds_median:.3f}", "0.001", 1)
    block = tables.benchmarks_block(report)
    assert markdown.replace_block(changed, block) != changed  # it would be seen
    assert tables.PLOT.exists()
