"""helpers.files: names, locks, what an older run left, what is broken."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from safetensors import SafetensorError

from helpers import CourseError
from helpers.files import runs
from helpers.files.disk import alone
from helpers.files.runs import (
    RunError,
    open_run,
    read_run,
    run_folder,
    save_adapter,
    saving,
)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../other", "/elsewhere", "sft/final", "traces", "cache"],
)
def test_run_folder_is_of_the_run_alone(tmp_path, name):
    """`sft --run traces --overwrite` once deleted the teacher's traces."""
    profile = tiny.profile(tmp_path / "here")
    with pytest.raises(RunError, match="plain name"):
        run_folder(profile, name)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_open_run_names_a_broken_record(tmp_path, content):
    with pytest.raises(RunError, match="no finished run.*helpers sft"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CourseError, match="run.json is broken.*overwrite"):
        open_run(tmp_path, {"rank": 4}, overwrite=False)
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.parametrize("name", ["log.json", "final", "resume", "epoch_1"])
def test_open_run_does_not_trust_a_run_without_its_settings(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(RunError, match="without its run.json"):
        open_run(tmp_path, {"rank": 4}, overwrite=False)
    assert open_run(tmp_path, {"rank": 4}, overwrite=True) is None
    assert not (tmp_path / name).exists()


def test_alone_refuses_a_second_writer_until_the_first_has_gone(tmp_path):
    for _ in range(2):  # and the lock is given back
        with alone(tmp_path / "x"):
            with alone(tmp_path / "y"), alone(tmp_path / "x", if_only=False):
                pass
            code = "import sys; from helpers.files.disk import *\n"
            code += "with alone(Path(sys.argv[1])): pass"
            done = subprocess.run(
                [sys.executable, "-c", code, tmp_path / "x"],
                capture_output=True, text=True,
            )  # fmt: skip
            assert "another run is writing x" in done.stderr


def test_last_checkpoint_newest_complete_one(tmp_path):
    assert runs.last_checkpoint(tmp_path / "none") is None
    for step, end in ((90, "}"), (100, "}"), (110, "")):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        state = f'{{"global_step": {step}{end}'
        (place / "trainer_state.json").write_text(state)
    assert runs.last_checkpoint(tmp_path).name == "checkpoint-100"
    assert not (tmp_path / "checkpoint-110").exists()


def test_saving_says_what_to_do_about_a_full_disk(tmp_path):
    for error in (
        SafetensorError("I/O error: File too large"),
        RuntimeError("[enforce fail at inline_container.cc:672]"),
    ):
        with pytest.raises(OSError, match="cannot save.*it goes on"):
            with saving(tmp_path):
                raise error  # fmt: skip
    with pytest.raises(RuntimeError, match="out of memory"), saving(tmp_path):
        raise RuntimeError("CUDA out of memory")


def test_save_adapter_leaves_the_old_one_when_it_fails(tmp_path):
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"old")

    class Broken:
        def save_pretrained(self, place, **_):
            Path(place).mkdir()
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_adapter(Broken(), Broken(), folder)
    assert (folder / "adapter_model.safetensors").read_bytes() == b"old"
