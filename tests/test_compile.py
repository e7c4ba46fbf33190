from functools import partial

import pytest
import runs
import torch
from safetensors.torch import load_file

from mbv2det.errors import ConfigError
from mbv2det.training.compilation import compile_errors

COMPILED = "--trainer.compile=true"


@pytest.fixture
def quick(monkeypatch):
    """Compiles without a compiler: the graph is captured, and run as it is."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(tmp_path_factory.mktemp("compiled"))


def weights(config, root, *arguments):
    out = config.parent / root
    runs.run_command("train", config, f"--trainer.default_root_dir={out}", *arguments)
    run = out / "tiny/1"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    best = load_file(run / "best.safetensors")
    return run, checkpoint["state_dict"], best


def test_a_compiled_run_has_the_names_of_another_and_resumes_with_and_without(config, quick):
    # Plain steps: adamw would make steps of one size of gradients near 0.
    one, two = ([f"--trainer.max_epochs={n}", "--optim.name=sgd"] for n in (1, 2))
    _, plain_state, plain_best = weights(config, "plain", *one)
    run, state, best = weights(config, "compiled", *one, COMPILED)
    assert list(state) == list(plain_state)
    assert list(best) == list(plain_best)
    assert "compile: true" in (run / "config.yaml").read_text()
    # Two steps of the same gradients, up to the order of sums.
    for name, tensor in plain_state.items():
        scale = max(1.0, tensor.float().abs().max().item())
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-4 * scale, msg=name)
    for root, arguments in (("compiled", []), ("plain", [COMPILED])):
        _, resumed, _ = weights(config, root, *two, "--resume=last", *arguments)
        assert list(resumed) == list(plain_state)


@pytest.mark.slow
def test_a_compiled_run_trains_resumes_and_is_measured(config):
    run, _, _ = weights(config, "inductor", "--trainer.max_epochs=1", COMPILED)
    weights(config, "inductor", "--trainer.max_epochs=2", COMPILED, "--resume=last")
    runs.run_command("eval", run)


def test_a_missing_compiler_is_one_line_and_leaves_no_folder(config, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    out = config.parent / "none"
    done = runs.run_command(
        "train", config, COMPILED, f"--trainer.default_root_dir={out}", check=False
    )
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert "trainer.compile: expected a C++ compiler" in lines[-1]
    assert "found no no-such-compiler" in lines[-1]
    assert not out.exists()


def test_a_failure_of_the_compiler_is_one_line():
    def broken(graph, inputs):
        raise OSError("no\nPython.h")

    function = torch.compile(torch.sin, backend=broken)
    message = r"^trainer\.compile: .*no Python\.h.*=false$"
    with pytest.raises(ConfigError, match=message) as raised, compile_errors():
        function(torch.zeros(1))
    assert "\n" not in str(raised.value)


def test_the_setting_is_off_by_default_and_checked(config):
    done = runs.run_command("train", config, "--trainer.compile=maybe", check=False)
    assert done.returncode == 2
    assert "trainer.compile: expected true or false, got" in done.stderr
