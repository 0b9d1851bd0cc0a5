"""What the doctor tries in a Python of its own: GPU, Unsloth, 4 bits."""

import pytest

from helpers.cli import doctor as doctor_probes
from helpers.cli import environment
from helpers.cli.doctor import Check, gpu_check


def test_check_prints_its_cure():
    check = Check("FAIL", "disk", "0.1 GiB free", "free some")
    assert str(check) == (
        "FAIL disk                0.1 GiB free. Cure: free some."
    )
    assert str(Check("OK", "evaluation, teacher", "fits")) == (
        "OK   evaluation, teacher fits"
    )


def test_gpu_check_fails_for_the_full_profile_alone(monkeypatch):
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: False)
    assert gpu_check("mini").status == "INFO"
    assert gpu_check("laptop").status == "INFO"
    assert gpu_check("full").status == "FAIL"


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("print('NVIDIA L4')", "OK", "sees NVIDIA L4"),
        (f"print({doctor_probes.NO_GPU!r})", "FAIL", "does not see it"),
        ("raise ImportError('libcudart.so')", "FAIL", "libcudart.so"),
    ],
)
def test_gpu_check_asks_torch_too(monkeypatch, code, status, text):
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(doctor_probes, "TORCH", code)
    for profile in ("laptop", "full"):
        check = gpu_check(profile)
        assert check.status == status and text in check.text
        assert ("your driver's CUDA" in check.cure) == (status == "FAIL")
    assert gpu_check("mini").status == "OK"  # the CPU would do


def test_gpu_check_without_an_environment_leaves_torch_alone(monkeypatch):
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(environment, "installed_version", lambda name: None)
    check = gpu_check("full")
    assert check.status == "OK" and check.text == "nvidia-smi lists one"


def test_gpu_check_believes_torch_here(monkeypatch):
    import torch

    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: True)
    seen = torch.cuda.is_available()
    assert gpu_check("full").status == ("OK" if seen else "FAIL")


def test_unsloth_check_that_cannot_load_is_no_failure(monkeypatch):
    code = "raise ImportError('no triton')"
    monkeypatch.setattr(doctor_probes, "UNSLOTH", code)
    check = doctor_probes.unsloth_check()
    assert check.status == "INFO" and "no triton" in check.text
    assert "transformers + PEFT" in check.text


def test_four_bit_check_that_does_not_work_is_a_failure(monkeypatch):
    code = "assert False, 'off by a lot'"
    monkeypatch.setattr(doctor_probes, "FOUR_BIT", code)
    check = doctor_probes.four_bit_check()
    assert check.status == "FAIL" and "off by a lot" in check.text
    assert "bitsandbytes" in check.cure


def test_last_line_of_gives_up_what_hangs(monkeypatch):
    monkeypatch.setattr(doctor_probes, "SUBPROCESS_SECONDS", 0.5)
    code = "import time; time.sleep(60)"
    worked, text = doctor_probes.last_line_of(code)
    assert not worked and "no answer within" in text


@pytest.mark.slow
def test_four_bit_check_works_here_on_the_gpu_where_there_is_one():
    import torch

    check = doctor_probes.four_bit_check()
    assert check.status == "OK", check.text
    where = "GPU" if torch.cuda.is_available() else "CPU"
    assert f"on the {where}" in check.text


@pytest.mark.slow
def test_unsloth_check_names_version_and_backend():
    check = doctor_probes.unsloth_check()
    version = environment.installed_version("unsloth")
    assert check.status == "OK", check.text
    assert check.text.startswith(f"{version}, C")
