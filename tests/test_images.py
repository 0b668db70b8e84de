"""Images in folders."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from funcnet.cli import main
from funcnet.datasets import (
    DataWarning,
    check_dataset,
    limits,
    load_arrays,
    load_dataset,
    load_images,
    pixels,
    read_inputs,
)


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=r"(?s)\A(?!.*\n).*" + match)


def says(match):
    return pytest.warns(DataWarning, match=r"(?s)\A(?!.*\n).*" + match)


def grey(value, size=(3, 4)):
    return Image.fromarray(np.full(size, value, np.uint8))


def colour(value, size=(3, 4)):
    return Image.fromarray(np.full((*size, 3), value, np.uint8) + np.arange(3, dtype=np.uint8))


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def folder(root, classes, start=0, suffix="png"):
    """Images of values that count up; of a class, their number."""
    for name, count in classes.items():
        for i in range(count):
            save(root / name / f"{i:02d}.{suffix}", grey(start + i))
        start += count
    return root


# Folders


def test_a_folder_for_each_class(tmp_path):
    data = check_dataset(load_images(folder(tmp_path, {"b": 20, "a": 10}), seed=3))
    assert data.class_names == ("a", "b")
    assert [x.shape for x in data[:6:2]] == [(24, 3, 4), (3, 3, 4), (3, 3, 4)]
    assert data.x_train.dtype == np.uint8
    values, y = np.concatenate(data[:6:2])[:, 0, 0], np.concatenate(data[1:6:2])
    assert sorted(values) == list(range(30))
    np.testing.assert_array_equal(y, values < 20)
    for a, b in zip(data, load_images(tmp_path, seed=3), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(data, load_dataset(tmp_path), strict=True):
        assert np.shape(a) == np.shape(b)
    assert [len(y) for y in load_images(tmp_path, val_fraction=0, test_fraction=0.5)[1:6:2]] == [
        15,
        0,
        15,
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "09"], ("09", "9", "10")),  # numbers, each its own
        (["10", "9", "x"], ("10", "9", "x")),
        (["none", "nan", "b"], ("b", "nan", "none")),  # nothing is missing here
        (["Train", "bus"], ("Train", "bus")),  # which has images, not classes
    ],
)
def test_classes_are_the_names_of_folders(tmp_path, names, expected):
    data = load_images(folder(tmp_path, dict.fromkeys(names, 3)))
    assert data.class_names == expected
    for image, label in zip(data.x_train, data.y_train, strict=True):
        assert names[image[0, 0] // 3] == expected[label]


@pytest.mark.parametrize("which", ["train val test", "Train Validation", "training TEST", "train"])
def test_splits_that_are_given(tmp_path, which):
    for i, name in enumerate(which.split()):
        folder(tmp_path / name, {"a": 20, "b": 10}, start=40 * i)
    data = check_dataset(load_images(tmp_path))
    values = {s: set(x[:, 0, 0]) for s, x in zip(("train", "val", "test"), data[:6:2], strict=True)}
    names = {"Train": "train", "Validation": "val", "training": "train", "TEST": "test"}
    parts = [names.get(name, name) for name in which.split()]
    for i, part in enumerate(parts[1:], start=1):
        assert values[part] == set(range(40 * i, 40 * i + 30))
        with raises(f"{part}_fraction is 0.2, but the {part} split is given"):
            load_images(tmp_path, **{f"{part}_fraction": 0.2})
    cut = [values[part] for part in values if part not in parts[1:]]
    assert set.union(*cut) == set(range(30))
    assert sum(map(len, cut)) == 30
    assert not (np.diff(data.y_train) >= 0).all()  # shuffled


def test_a_class_that_is_not_trained_and_one_without_images(tmp_path):
    folder(tmp_path / "train", {"a": 3, "b": 3})
    folder(tmp_path / "test", {"b": 3, "c": 3})
    (tmp_path / "train" / "none").mkdir()
    with pytest.warns(DataWarning) as notes:
        data = load_images(tmp_path)
    assert data.class_names == ("a", "b", "c")
    assert [str(note.message) for note in notes] == [
        f"{tmp_path}: no class of 'none', where no images are",
        f"{tmp_path}: no example to train is of 'c', which the test split has",
    ]


def test_what_is_left_out_is_counted(tmp_path):
    folder(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "b" / ".hidden.png").write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    save(tmp_path / "overview.png", grey(0))
    with pytest.warns(DataWarning) as notes:
        data = load_images(tmp_path)
    assert sum(map(len, data[1:6:2])) == 6
    why = "hidden or no images to read here"
    assert [str(note.message) for note in notes] == [
        f"{tmp_path}: 2 left out, {why}: 'overview.png', '.git'",
        f"{tmp_path / 'b'}: 2 left out, {why}: '.hidden.png', 'notes.txt'",
    ]


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ([], "has no folders with images, one for each class; the folders in it: none"),
        (["a.png"], "the folders in it: none"),
        (["a/x.txt"], "the folders in it: 'a'"),
        (["a/b/x.png"], r"a.b is a folder where images are looked for: .*train/CLASS"),
        (["test/b/x.png", "b/x.png"], "b is a folder where images"),
        (["train/a/x.png", "test/x.png"], "test has no folders with images"),
        (["train/a/x.png", "b/x.png"], "folders of splits, 'train', and others, 'b'"),
        (["train/a/x.png", "val/a/x.png", "valid/a/x.png"], "are both the val split"),
    ],
)
@pytest.mark.filterwarnings("ignore::funcnet.datasets.DataWarning")
def test_folders_that_are_not_understood(tmp_path, files, match):
    for name in files:
        save(tmp_path / name, grey(0), format="png")
    with raises(match):
        load_images(tmp_path)


def test_of_nothing(tmp_path):
    with raises("missing", FileNotFoundError):
        load_images(tmp_path / "missing")
    with raises("load_images"):
        load_arrays(folder(tmp_path, {"a": 1}))
    with raises("label='a' is for tables, not for the folder"):
        load_dataset(tmp_path, label="a")


def test_links_that_lead_out_are_refused(tmp_path):
    root = folder(tmp_path / "mine", {"a": 3, "b": 3})
    (root / "a" / "link.png").symlink_to(root / "b" / "00.png")
    assert sum(map(len, load_images(root)[1:6:2])) == 7
    for target in (save(tmp_path / "out.png", grey(0)), tmp_path / "nothing.png"):
        (root / "a" / "out.png").symlink_to(target)
        with raises(r"out\.png is a link that leads out of .*mine"):
            load_images(root)
        (root / "a" / "out.png").unlink()
    (root / "c").symlink_to(tmp_path)
    with raises(r"c is a link that leads out"):
        load_images(root)
    (root / "c").unlink()
    (root / "c").symlink_to(root / "c")
    with raises("c is a link that leads out"):
        load_images(root)


# Images


@pytest.mark.parametrize("suffix", ["png", "JPG", "jpeg", "bmp", "gif", "tif", "TIFF"])
def test_formats(tmp_path, suffix):
    x = load_images(folder(tmp_path, {"a": 3, "b": 3}, suffix=suffix), test_fraction=0).x_train
    assert x.shape == (5, 3, 4)
    assert set(x[:, 0, 0]) < set(range(6))


def test_colour(tmp_path):
    for suffix in ("png", "webp"):
        path = save(tmp_path / f"a.{suffix}", colour(7), lossless=True)
        np.testing.assert_array_equal(read_inputs(path), np.asarray(colour(7))[None])
    palette = colour(7).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(
        read_inputs(save(tmp_path / "p.png", palette)), np.asarray(colour(7))[None]
    )


def test_grey_beside_colour_is_said(tmp_path):
    save(tmp_path / "a.png", grey(9))
    save(tmp_path / "b.png", colour(7))
    with says(r"1 image \(such as .*a\.png\) grey: made colour, as the others are"):
        x = read_inputs(tmp_path)
    np.testing.assert_array_equal(x[0], np.full((3, 4, 3), 9))
    np.testing.assert_array_equal(x[1], np.asarray(colour(7)))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "transparent"])
def test_alpha_is_left_out_and_said(tmp_path, mode):
    source = grey(5) if mode == "LA" else colour(5)
    image = source.copy()
    if mode != "transparent":
        image.putalpha(grey(100))
    options = {"transparency": (5, 6, 7)} if mode == "transparent" else {}
    with says(r"1 image \(such as .*a\.png\): alpha channel left out"):
        x = read_inputs(save(tmp_path / "a.png", image, **options))
    np.testing.assert_array_equal(x[0], np.asarray(source))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path, suffix):
    frames = {"save_all": True, "append_images": [colour(200)]} | (
        {"lossless": True} if suffix == "webp" else {}
    )
    with says("only the first frame is read"):
        x = read_inputs(save(tmp_path / f"a.{suffix}", colour(5), **frames))
    np.testing.assert_array_equal(x[0], np.asarray(colour(5)))


def test_the_orientation_is_applied(tmp_path):
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    x = read_inputs(save(tmp_path / "a.png", image, exif=exif))
    np.testing.assert_array_equal(x[0], np.rot90(np.asarray(image), -1))


def test_sizes_that_differ_are_refused_or_resized(tmp_path):
    folder(tmp_path, {"a": 3, "b": 3})
    save(tmp_path / "b" / "large.png", grey(1, (6, 8)))
    with raises(
        r"\.png is . x . pixels, but .*\.png is . x . \(height x width\)"
        r".*--image-size H W \(size=\(H, W\)\)"
    ):
        load_images(tmp_path)
    data = load_images(tmp_path, size=(6, 5))
    assert data.x_train.shape == (5, 6, 5)
    assert set(np.concatenate(data[:6:2])[:, 0, 0]) == set(range(6))
    assert read_inputs(tmp_path / "a", size=[1, 2]).shape == (3, 1, 2)
    with raises("the width in size must be at least 1"):
        load_images(tmp_path, size=(1, 0))
    with raises("the height in size must be an integer", TypeError):
        load_images(tmp_path, size=(1.5, 2))
    for size in (6, (1, 2, 3), "ab"):
        with raises(r"size must be a height and a width \(--image-size H W\), got"):
            load_images(tmp_path, size=size)
    with raises("size 10000 x 10000 is above 64,000,000 pixels"):
        load_images(tmp_path, size=(10_000, 10_000))


def chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png(width, height, bits, kind, data):
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_is_refused(tmp_path, kind, channels):
    row = b"\0" + bytes(range(2 * channels * 2))
    (tmp_path / "a.png").write_bytes(png(2, 2, 16, kind, row * 2))
    with raises(r"a\.png cannot be read as an image: it has more than 8 bits a channel"):
        read_inputs(tmp_path)


def tiff(bits):
    """A TIFF of one pixel of three channels."""
    tags = {256: 1, 257: 1, 259: 1, 262: 2, 273: 196, 277: 3, 278: 1, 279: 3 * bits // 8}
    entries = [(tag, 4, 1, value) for tag, value in tags.items()] + [(258, 3, 3, 190)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return start.ljust(190, b"\0") + struct.pack("<HHH", bits, bits, bits) + bytes([1, 0, 0] * 6)


def test_a_tiff_of_16_bits_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(8))
    np.testing.assert_array_equal(read_inputs(path), [[[[1, 0, 0]]]])
    path.write_bytes(tiff(16))
    with Image.open(path) as image:
        assert image.mode == "RGB"
    with raises(r"a\.tif cannot be read as an image: it has more than 8 bits a channel"):
        read_inputs(path)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK", "LAB"])
def test_modes_that_8_bits_or_rgb_do_not_hold_are_refused(tmp_path, mode, compression):
    save(tmp_path / "a.tif", Image.new(mode, (4, 3)), compression=compression)
    with raises(r"a\.tif cannot be read as an image: it (has more than 8 bits|is \w+, neither)"):
        read_inputs(tmp_path)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    for width in (8001, 12_000, 100_000):  # Pillow: nothing, a warning, an error
        (tmp_path / "a.png").write_bytes(png(width, 8000, 8, 0, b""))
        with raises(r"a\.png cannot be read as an image: it has .*more than 64,000,000"):
            read_inputs(tmp_path)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 12)
    assert read_inputs(save(tmp_path / "b.png", grey(1))).shape == (1, 3, 4)
    with raises(r"b\.png .*it has 3 x 5 pixels, more than 12"):
        read_inputs(save(tmp_path / "b.png", grey(1, (3, 5))))
    monkeypatch.setattr(limits, "memory", lambda: 30)
    with raises("holds 36 bytes, more than the 30 bytes of memory here"):
        load_images(folder(tmp_path / "many", {"a": 3}))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_damaged_images_are_named(tmp_path, suffix, rng):
    noise = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    path = save(tmp_path / f"a.{suffix}", noise)
    content = path.read_bytes()
    # Of a .gif and a .jpg the last bytes say no more than that it ends.
    for end in (0, 1, 10, len(content) // 2, len(content) * 3 // 4):
        path.write_bytes(content[:end])
        with raises(rf"a\.{suffix} cannot be read as an image: ."):
            read_inputs(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore::funcnet.datasets.DataWarning")
def test_any_damage_is_one_line_that_names_the_file(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(["png", "jpg", "gif", "bmp", "tif", "webp"]))
    path = save(tmp_path_factory.mktemp("damaged") / f"a.{suffix}", colour(5))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert read_inputs(path).dtype == np.uint8
    except ValueError as error:
        assert "\n" not in str(error)
        assert f"a.{suffix}" in str(error)


def test_no_other_format_is_tried(tmp_path):
    save(tmp_path / "a.ppm", grey(1)).rename(tmp_path / "a.png")
    with raises(r"a\.png cannot be read as an image: it is none, or damaged"):
        read_inputs(tmp_path / "a.png")


# To predict from


def test_inputs_are_in_the_order_of_their_names(tmp_path):
    for name, value in (("b.png", 2), ("a.bmp", 1), ("c.gif", 3)):
        save(tmp_path / name, grey(value))
    assert read_inputs(tmp_path)[:, 0, 0].tolist() == [1, 2, 3]
    (tmp_path / "notes.txt").touch()
    (tmp_path / "more").mkdir()
    with says("2 left out, .*: 'more', 'notes.txt'"):
        read_inputs(tmp_path)
    with raises("more has no images to predict from, and no folders"):
        read_inputs(tmp_path / "more")
    (tmp_path / "more" / "cats").mkdir()
    with raises(
        "more has no images to predict from: the folders in it are 'cats'; name one of them"
    ):
        read_inputs(tmp_path / "more")
    with raises("label='a' is for tables, but .* holds arrays"):
        read_inputs(tmp_path / "a.bmp", label="a")
    with raises("missing.png", FileNotFoundError):
        read_inputs(tmp_path / "missing.png")


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with raises(r'PIL is needed to read images: pip install "funcnet\[images\]"', ImportError):
        load_images(folder(tmp_path, {"a": 1}))


def test_train_and_predict(tmp_path, capsys):
    root = folder(tmp_path / "mine", {"a": 20, "b": 20})
    save(root / "a" / "large.png", grey(1, (5, 9)))
    (root / "a" / "notes.txt").touch()
    options = ["--epochs", "1", "--hidden-dims", "2", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", "--dataset", str(root), *options]) == 2
    assert "give --image-size H W" in capsys.readouterr().err
    assert main(["train", "--dataset", str(root), "--image-size", "3", "4", *options]) == 0
    assert "note: " in capsys.readouterr().err
    assert json.loads((tmp_path / "run/config.json").read_text())["class_names"] == ["a", "b"]
    assert main(["predict", str(tmp_path / "run"), str(root / "a")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 22
