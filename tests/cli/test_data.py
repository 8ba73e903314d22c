"""The commands `data fetch`, `data verify` and `data path`."""

from messages import assert_contains


def test_data_commands_print_the_folder(run, real_folder):
    assert run("data", "path", "--data-dir", real_folder) == (0, f"{real_folder}\n", "")
    code, out, err = run("data", "verify", "--data-dir", real_folder)
    assert (code, err) == (0, "")
    assert str(real_folder) in out
    assert run("data", "fetch", "--data-dir", real_folder)[0] == 0  # nothing is left to download


def test_data_path_without_data_names_the_remedy(run):
    code, out, err = run("data", "path")
    assert (code, out) == (2, "")
    assert_contains(err, "'fmnist-fast data fetch'")
