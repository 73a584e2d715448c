import wave

import numpy as np
import pytest

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.tasks import load
from unscan.trainer.tasks.speech import COMMANDS, FOLDERS, WORDS


def record(path, samples, *, rate=16_000, channels=1, width=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(channels)
        recording.setsampwidth(width)
        recording.setframerate(rate)
        recording.writeframes(samples.tobytes())


def spoken(word, speaker, length=16_000):
    draws = np.random.default_rng([WORDS.index(word), speaker])
    return draws.integers(-(2**15), 2**15, length).astype("<i2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The words of four speakers: two train, the second one validates, the last one tests, and noise besides."""
    made = tmp_path_factory.mktemp("speech")
    for word in WORDS:
        for speaker in range(4):
            record(made / word / f"{speaker}a_nohash_0.wav", spoken(word, speaker))
    record(made / "_background_noise_" / "hum.wav", np.zeros(20_000, "<i2"))
    (made / "validation_list.txt").write_text("".join(f"{word}/1a_nohash_0.wav\n" for word in WORDS))
    extra = "".join(f"{word}/3a_nohash_0.wav\n" for word in WORDS)
    (made / "testing_list.txt").write_text(extra + "yes/2a_nohash_0.wav\n")
    return made


@pytest.fixture
def ten(tmp_path):
    """The ten commands by three speakers, of 160 samples each."""
    for word in COMMANDS:
        for speaker in range(3):
            record(tmp_path / word / f"{speaker}a.wav", spoken(word, speaker, 160))
    (tmp_path / "validation_list.txt").write_text("yes/1a.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/2a.wav\nyes/2a.wav\nbed/2a.wav\n")
    return tmp_path


def load_ten(folder, **settings):
    return load("speech_commands", settings={"classes": 10, **settings}, data_dir=folder)


def test_the_lists_decide_the_split(folder):
    task = load("speech_commands", settings={"downsample": 100}, data_dir=folder)
    assert (task.steps, task.input_shape, task.classes, task.kind) == (160, (1,), 35, "real")
    assert task.train.x.shape == (69, 160, 1)
    assert task.tests["validation"].y.tolist() == list(range(35))
    assert sorted(task.test.y.tolist()) == sorted([*range(35), WORDS.index("yes")])
    assert task.chance == pytest.approx(2 / 36)
    assert task.train.y[:35].tolist() == list(range(35))  # all words of the first speaker, then of the next
    assert (
        "35 words at 160 Hz (means of 100 samples); 69 recordings train, 35 validate, 36 test"
        in task.description
    )


@pytest.mark.parametrize("inner", FOLDERS)
def test_amplitudes_are_those_of_the_file(ten, tmp_path, inner, monkeypatch):
    around = tmp_path / "around"
    around.mkdir()
    inside = around / inner
    inside.symlink_to(ten, target_is_directory=True)
    monkeypatch.setenv("UNSCAN_DATA", str(around))
    task = load("speech_commands", settings={"classes": 10})
    assert (task.steps, task.classes) == (16_000, 10)
    assert task.test.y.tolist() == [1, 0]  # no, yes: ordered by file, then by word
    assert task.tests["validation"].y.tolist() == [0]
    sound = task.test.x[0, :, 0].numpy()
    np.testing.assert_array_equal(sound[:160] * 2**15, spoken("no", 2, 160))
    assert not sound[160:].any()  # a short recording has zeros at its end
    assert len(task.train.y) == 27


def test_a_step_is_the_mean_of_neighbouring_samples(ten):
    task = load_ten(ten, downsample=4)
    assert task.steps == 4000
    means = spoken("no", 2, 160).astype(np.float64).reshape(-1, 4).mean(axis=1) / 2**15
    # sums of four 16-bit numbers are exact in float32
    np.testing.assert_array_equal(task.test.x[0, :40, 0].numpy(), means.astype(np.float32))


def test_settings_are_checked(ten):
    with pytest.raises(InvalidInput, match="classes of the task speech_commands is 12; allowed: 35, 10"):
        load_ten(ten, classes=12)
    with pytest.raises(InvalidInput, match="downsample of the task speech_commands is 3; allowed: a divisor"):
        load_ten(ten, downsample=3)
    with pytest.raises(InvalidInput, match="lacks the folder backward"):
        load("speech_commands", data_dir=ten)
    with pytest.raises(InvalidInput, match="are no fixed brightness"):
        load("speech_commands", settings={"classes": 10}, data_dir=ten, encoding="rate")


def test_missing_lists_and_folders(ten, monkeypatch):
    (ten / "validation_list.txt").unlink()
    with pytest.raises(InvalidInput, match=r"lacks validation_list.txt; unpack"):
        load_ten(ten)
    (ten / "testing_list.txt").unlink()
    with pytest.raises(
        InvalidInput, match=r"holds no testing_list.txt, nor do .* unpack speech_commands_v0.02"
    ):
        load_ten(ten)
    with pytest.raises(InvalidInput, match="is not a folder"):
        load_ten(ten / "none")
    monkeypatch.delenv("UNSCAN_DATA", raising=False)
    with pytest.raises(InvalidInput, match="no data directory is named"):
        load_ten(None)


def test_empty_parts_lost_recordings_and_broken_lists(ten):
    (ten / "validation_list.txt").write_text("")
    with pytest.raises(InvalidInput, match="no recordings for the validation part"):
        load_ten(ten)
    (ten / "validation_list.txt").write_text("yes/9a.wav\nup/9a.wav\n")
    with pytest.raises(DamagedFile, match=r"lacks up/9a.wav, which validation_list.txt names \(2 in all\)"):
        load_ten(ten)
    (ten / "validation_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedFile, match="is not a list of files"):
        load_ten(ten)


SOUND = spoken("yes", 0, 100)


@pytest.mark.parametrize(
    ("samples", "how", "says"),
    [
        (SOUND, {"rate": 8_000}, "16 bits, 8000 Hz; wanted channels 1, 16 bits, 16000 Hz"),
        (SOUND, {"channels": 2}, "channels 2, 16 bits"),
        (SOUND.astype(np.uint8), {"width": 1}, "channels 1, 8 bits"),
        (np.zeros(16_001, "<i2"), {}, "16001 samples, wanted at most 16000"),
    ],
)
def test_recordings_of_another_kind_are_refused(ten, samples, how, says):
    record(ten / "yes" / "0a.wav", samples, **how)
    with pytest.raises(DamagedFile, match=says) as raised:
        load_ten(ten)
    assert str(ten / "yes" / "0a.wav") in str(raised.value)


@pytest.mark.parametrize("keep", [0, 7, 30, 44, 101, 200])
def test_recordings_that_are_cut_off_are_refused(ten, keep):
    path = ten / "yes" / "0a.wav"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedFile, match=r"0a.wav: .* unpack speech_commands_v0.02.tar.gz again"):
        load_ten(ten)
    path.write_bytes(b"<html>no such file</html>")
    with pytest.raises(DamagedFile, match="not a WAV file"):
        load_ten(ten)
