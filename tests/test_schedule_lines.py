import pytest
from runs import run_command, write_config


@pytest.mark.parametrize(
    ("arguments", "length", "warned"),
    [
        (["--trainer.max_epochs=2"], "4 steps, 0 of them warm-up", True),
        (["--trainer.max_steps=2"], "2 steps, 0 of them warm-up", False),
    ],
)
def test_train_says_how_many_steps_it_takes_and_warns_of_few(tmp_path, arguments, length, warned):
    config = write_config(tmp_path, num_train=8, num_val=2)
    done = run_command("train", config, *arguments)
    assert f"schedule: cosine, {length}" in done.stderr
    warning = "learns little in 4 steps; --trainer.max_epochs=150 makes 300 of them"
    assert (warning in done.stderr) == warned
