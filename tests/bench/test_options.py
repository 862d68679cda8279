import pytest

from isonomy.bench import options
from isonomy.errors import IsonomyError

DEFAULTS = {"size": (64, 64), "train": 320, "rate": 1e-3, "noise": False, "profile": "nyud4", "init": (0.9, 0.1)}


def test_a_name_may_stand_alone():
    assert options.name_of("rooms") == "rooms"
    assert options.name_of("rooms:train=3") == "rooms"
    assert options.read("rooms", DEFAULTS, "rooms") == {}
    assert options.read("rooms:", DEFAULTS, "rooms") == {}


def test_a_value_has_the_type_of_its_default():
    text = "rooms: size=96x128, train=12,rate=1e-4,noise=true,profile=city2,init=1x0.5"
    found = options.read(text, DEFAULTS, "rooms")
    assert found == {
        "size": (96, 128),
        "train": 12,
        "rate": 1e-4,
        "noise": True,
        "profile": "city2",
        "init": (1.0, 0.5),
    }
    assert isinstance(found["train"], int)
    assert all(isinstance(value, float) for value in found["init"])


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("trian=3", "Unknown option of rooms 'trian': did you mean 'train'"),
        ("train", "Option train of rooms is '': write something like 320"),
        ("train=3.5", "Option train of rooms is '3.5': write something like 320"),
        ("size=96", "Option size of rooms is '96': write something like 64x64"),
        ("size=96xwide", "Option size of rooms is '96xwide': write something like 64x64"),
        ("train=3,train=4", "Option train of rooms is given twice: give each option once"),
        ("noise=1", "Option noise of rooms is '1': write true or false"),
    ],
)
def test_what_cannot_be_read_is_refused(option, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        options.read(f"rooms:{option}", DEFAULTS, "rooms")


def test_the_options_of_a_class_are_what_has_a_plain_default():
    def made(encoder, seed, *, variant="survey", width=256, image=(3,), head=None):
        """Only three of these can be written on a command line."""

    assert options.defaults_of(made) == {"variant": "survey", "width": 256, "image": (3,)}
