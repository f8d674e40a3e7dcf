"""Globs below a folder."""

import pytest
from etils import epath

from moe_jax.data.files import find_below, find_matching

NAMES = ["a.py", "b.txt", "sub/a.py", "sub/deep/a.py", "sub/[x].py"]


@pytest.fixture
def folder(tmp_path):
    for name in [*NAMES, ".hidden", "sub/.git/a.py"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return epath.Path(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*", NAMES),
        ("*", ["a.py", "b.txt"]),
        ("*.py", ["a.py"]),
        ("**/a.py", ["a.py", "sub/a.py", "sub/deep/a.py"]),
        ("sub/**", ["sub/a.py", "sub/deep/a.py", "sub/[x].py"]),
        ("sub/*/?.py", ["sub/deep/a.py"]),
        ("[!a].txt", ["b.txt"]),
        ("[ab].*", ["a.py", "b.txt"]),
        ("a.p", []),
    ],
)
def test_pattern_finds_what_a_shell_would(folder, pattern, found):
    assert sorted(find_below(folder, pattern)) == sorted(found)


def test_a_name_a_folder_and_a_glob_are_all_inputs(folder):
    assert find_matching(f"{folder}/sub/[x].py") == [folder / "sub/[x].py"]
    assert len(find_matching(str(folder))) == len(NAMES)
    assert find_matching(f"{folder}/s*b/d*p/*.py") == [folder / "sub/deep/a.py"]
    assert find_matching(f"{folder}/none") == []
    assert find_matching(f"{folder}/none/*.py") == []
