"""What is written comes back as it was: data sets of any shape and any names, weights, checkpoints, predictions."""

import json

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file

from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.loading import load
from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, TokenIds, Words, contents, fingerprint
from mmsa_lib.data.store import read_header, read_store, write_store
from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.experiments.files import read_predictions, write_predictions
from mmsa_lib.training.checkpoint import Checkpoint, Progress
from mmsa_lib.training.tensors import read_tensors, save_tensors

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\0"), min_size=1, max_size=9)
SEEDS = st.integers(0, 2**32)
TASKS = [regression((-3, 3)), regression((-1, 1)), classes(["a", "b", "c"]), emotions(["joy", "fear"])]


@st.composite
def feature_sets(draw, count):
    """Ragged features: any lengths, frames that are missing, values of any finite size."""
    generator, width = np.random.default_rng(draw(SEEDS)), draw(st.integers(1, 5))
    lengths = np.array(draw(st.lists(st.integers(1, 6), min_size=count, max_size=count)))
    observed = generator.random(lengths.sum()) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    values = generator.normal(size=(lengths.sum(), width)) * 10.0 ** draw(st.integers(-30, 30))
    values = values.astype(np.float32) * observed[:, None]
    modality, level = draw(st.sampled_from(MODALITIES)), draw(st.sampled_from(["word", "frame", "token", "utterance"]))
    return FeatureSet(modality, values, lengths, observed, level, description=draw(TEXT))


@st.composite
def records(draw):
    """A sound data set: three samples or more, with any of the optional parts."""
    count, task = draw(st.integers(3, 8)), draw(st.sampled_from(TASKS))
    generator = np.random.default_rng(draw(SEEDS))
    each = {"min_size": count, "max_size": count}
    fold = st.permutations(["train", "valid", "test", *["train"] * (count - 3)])
    if task.kind == "regression":
        labels = generator.uniform(*task.range, count)
    else:
        labels = generator.integers(0, 3, count) if task.kind == "classes" else generator.integers(0, 2, (count, 2))
    more = {}
    if draw(st.booleans()):
        more["transcripts"] = draw(st.lists(TEXT, **each))
    if draw(st.booleans()):
        offset = np.cumsum([0, *draw(st.lists(st.integers(0, 3), **each))]).astype(np.int32)
        word = np.array([draw(TEXT) for _ in range(offset[-1])], dtype=object)
        more["words"] = Words(word, generator.random((len(word), 2)).astype(np.float32), offset)
    if draw(st.booleans()):
        more["token_ids"] = TokenIds(generator.integers(0, 999, (count, 4)), generator.random((count, 4)) < 0.7, "m")
    if draw(st.booleans()):
        more["times"] = generator.random((count, 2)).astype(np.float32)
    return DatasetRecord(
        "any", task, draw(st.lists(NAMES, unique=True, **each)), draw(st.lists(NAMES, **each)),
        labels.astype(np.float32), {draw(NAMES): np.array(draw(fold)), "standard": np.array(draw(fold))},
        draw(st.dictionaries(NAMES, feature_sets(count), max_size=3)),
        factors={name: generator.random((count, 2)).astype(np.float32) for name in draw(st.sets(NAMES, max_size=2))},
        notes=draw(st.lists(TEXT, max_size=2)), terms=draw(TEXT), **more,
    )  # fmt: skip


def parts(record):
    return {(part, member): np.asarray(values).tolist() for part, member, _, values in contents(record)}


@settings(max_examples=50)
@given(record=records())
def test_any_data_set_comes_back_from_its_store(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("store") / "any.h5"
    written = write_store(record, path)
    back = read_store(path)
    assert written == fingerprint(record) == fingerprint(back) == read_header(path)["fingerprint"]
    assert parts(back) == parts(record)
    assert (back.task, back.notes, back.terms) == (record.task, record.notes, record.terms)
    assert [one.description for one in back.features.values()] == [f.description for f in record.features.values()]
    assert write_store(back, path.with_name("again.h5")) == written
    assert path.with_name("again.h5").read_bytes() == path.read_bytes()


@settings(max_examples=30)
@given(record=records(), data=st.data())
def test_what_is_loaded_is_what_the_record_holds(tmp_path_factory, record, data):
    chosen = {one.modality: name for name, one in record.features.items()}
    if not chosen or record.task.kind == "classes":
        return
    path = tmp_path_factory.mktemp("store") / "any.h5"
    write_store(record, path)
    fold = data.draw(st.sampled_from(sorted(record.folds)))
    absent = {m: None for m in MODALITIES if m not in chosen}
    splits = load(path, fold, standardise=False, **chosen, **absent)
    for split, found in splits.items():
        rows = np.flatnonzero(record.folds[fold] == split)
        assert list(found.ids) == [record.ids[row] for row in rows]
        for m, name in chosen.items():
            one = record.features[name]
            for place, row in enumerate(rows):
                frames = slice(one.offsets[row], one.offsets[row + 1])
                length = int(found.lengths(m)[place])
                assert length == one.lengths[row]
                np.testing.assert_array_equal(found.data.features[m][place, :length], one.values[frames])
                np.testing.assert_array_equal(found.data.observed[m][place, :length], one.observed[frames])
                assert not found.data.features[m][place, length:].any()


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw):
    """Of any type and shape, turned, empty, with NaN and infinities."""
    values = draw(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
    tensor = torch.from_numpy(values.copy()).nan_to_num(posinf=1e4) if draw(st.booleans()) else torch.from_numpy(values)
    tensor = tensor.to(draw(st.sampled_from(DTYPES)))
    return tensor.transpose(0, -1) if tensor.dim() > 1 and draw(st.booleans()) else tensor


def equal(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor):
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor.flatten().to(torch.uint8)


@given(st.dictionaries(NAMES, tensors(), min_size=1, max_size=4), st.dictionaries(NAMES, TEXT))
def test_any_tensors_come_back_and_are_the_same_for_others(tmp_path_factory, named, metadata):
    path = tmp_path_factory.mktemp("tensors") / "model.safetensors"
    tied = {**named, **{f"{name} again": value for name, value in named.items()}}
    save_tensors(path, tied, metadata)
    found, said = read_tensors(path)
    assert said == metadata
    assert found.keys() == tied.keys() == load_file(path).keys()
    assert all(equal(found[name], value) for name, value in tied.items())
    whole = path.read_bytes()
    save_tensors(path, tied, dict(reversed(metadata.items())))
    assert path.read_bytes() == whole


@settings(max_examples=25)
@given(seed=SEEDS, epoch=st.integers(1, 4), best=st.integers(0, 4), history=st.lists(st.dictionaries(NAMES, st.floats(
    allow_nan=False)), max_size=3))  # fmt: skip
def test_a_checkpoint_puts_back_weights_optimisers_and_random_numbers(tmp_path_factory, seed, epoch, best, history):
    class Small(torch.nn.Linear):
        def training_state(self):
            return {"seen": self.seen}

        def load_training_state(self, state):
            self.seen = state["seen"]

    def made(offset):
        torch.manual_seed(seed + offset)
        model = Small(3, 2)
        model.seen = {"rows": torch.rand(4)}
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        model(torch.rand(5, 3)).sum().backward()
        optimizer.step()
        return model, {"main": optimizer}, {"order": torch.Generator().manual_seed(seed + offset)}

    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    model, optimizers, generators = made(0)
    progress = Progress(epoch=epoch, best_epoch=min(best, epoch), best_value=0.5, history=history)
    kept = Checkpoint(path, "one")
    if progress.best_epoch:
        kept.keep_best(progress, model)
    kept.save(progress, model, optimizers, generators)
    expected = torch.rand(3), torch.rand(3, generator=generators["order"])
    other = Checkpoint(path, "one")
    found, said = other.read()
    assert (found, said) == (progress, "")
    again, its_optimizers, its_generators = made(1)
    other.restore(found, again, its_optimizers, its_generators)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert torch.equal(again.seen["rows"], model.seen["rows"])
    assert json.dumps(its_optimizers["main"].state_dict(), default=torch.Tensor.tolist) == json.dumps(
        optimizers["main"].state_dict(), default=torch.Tensor.tolist
    )
    assert all(map(torch.equal, (torch.rand(3), torch.rand(3, generator=its_generators["order"])), expected))
    assert Checkpoint(path, "another").read()[0] is None


@settings(max_examples=40)
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=6, unique_by=lambda pair: pair[0]), SEEDS,
       st.sampled_from([(), (3, 2), (4,)]))  # fmt: skip
def test_predictions_come_back(tmp_path_factory, names, seed, shape):
    path, count = tmp_path_factory.mktemp("predictions") / "predictions.h5", len(names)
    generator = torch.Generator().manual_seed(seed)
    ids, groups = zip(*names, strict=True)
    steps = {"text": torch.ones(count, 1, dtype=torch.bool)}
    batch = Batch({"text": torch.ones(count, 1, 1)}, steps, steps, torch.randn(count, generator=generator),
                  torch.arange(count), ids)  # fmt: skip
    data = Utterances(batch, regression(), groups=groups)
    predictions = {level: torch.randn(count, *shape, generator=generator) for level in (0.0, 0.1, "text+audio")}
    write_predictions(path, {("frames", level, "test"): (data, p) for level, p in predictions.items()}, "run")
    for level, expected in predictions.items():
        found = read_predictions(path, "test", "frames", level)
        assert (found.ids, found.groups) == (ids, groups)
        np.testing.assert_array_equal(found.predictions, expected.numpy())
        np.testing.assert_array_equal(found.labels, data.labels.numpy())
