"""The command `info`."""

import json

from fmnist_fast import load_model


def test_info_of_installation_and_model(run, trained):
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["backends"]["numpy"] == "available"
    assert facts["threads"] >= 1
    code, out, _ = run("info", trained, "--json")
    assert json.loads(out)["architecture"]["sizes"] == [784, 8, 10]
    for arguments in (["info"], ["info", trained]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert out.count("\n") > 5


def test_info_of_ensemble_lists_its_members(run, ensemble):
    code, out, _ = run("info", ensemble, "--json")
    assert code == 0
    assert json.loads(out) == load_model(ensemble).metadata()
    code, out, err = run("info", ensemble)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["format_version", "4"]
    assert "architecture: sizes: 784 8 10" in lines[-2]
    assert "architecture: sizes: 784 12 6 10" in lines[-1]
    assert [line.count("class 3") for line in lines] == [0] * len(lines)  # a table has numbers
    assert sum("dataset" in line for line in lines) == 1  # all members have the same: one line
