"""The DataModule under a real Trainer: exact resume, partition over ranks and workers, typed batches on arrival."""

import lightning as L
import pytest
import torch

from datamodules.batches import Cursor, FixedBatches, Share, TrainBatches
from datamodules.config import DataConfig
from datamodules.module import LatentDataModule
from streamchar.errors import InputError
from streamchar.orchestrator.text import SpelledWords
from streamchar.types import ChunkBatch, RolloutBatch
from tests.latent_fakes import CLOCK, WINDOW, write_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("latents")
    write_store(root / "train", clips=12)
    write_store(root / "val", clips=4)
    return root


def module_of(folder, kind="teacher", workers=0, **options):
    cfg = DataConfig(batch_size=4, val_items=10, num_workers=workers, **options)
    return LatentDataModule(cfg, folder, CLOCK, WINDOW, SpelledWords(), kind, seed=5)


class Recorder(L.LightningModule):
    """Steps one weight, and writes down which samples it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, _):
        self.seen += batch.index.tolist()
        assert all(isinstance(k, str) for k in batch.keys)
        loss = (self.weight - batch.target.audio.mean()) ** 2
        self.trainer.datamodule.advance(len(batch))
        return loss

    def validation_step(self, batch, _):
        self.validated.append(batch.index.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(root, steps, **options):
    return L.Trainer(default_root_dir=root, max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False,
                     enable_model_summary=False, num_sanity_val_steps=0, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_goes_on_at_exactly_the_next_sample(folder, tmp_path, workers):
    whole = Recorder()
    trainer(tmp_path, 7).fit(whole, datamodule=module_of(folder))
    assert whole.seen == list(range(28))
    part, first = Recorder(), trainer(tmp_path, 3)
    first.fit(part, datamodule=module_of(folder, workers=workers))
    first.save_checkpoint(tmp_path / "part.ckpt")
    resumed, data = Recorder(), module_of(folder, workers=workers)
    trainer(tmp_path, 7).fit(resumed, datamodule=data, ckpt_path=tmp_path / "part.ckpt", weights_only=True)
    assert part.seen + resumed.seen == whole.seen
    assert data.consumed == 28
    torch.testing.assert_close(resumed.weight, whole.weight, rtol=0, atol=0)


def test_short_epochs_and_validation_between_do_not_disturb_the_order(folder, tmp_path):
    model = Recorder()
    trainer(tmp_path, 6, limit_train_batches=2, check_val_every_n_epoch=1).fit(model, datamodule=module_of(folder))
    assert model.seen == list(range(24))
    assert model.validated[:3] == model.validated[3:6] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]


def source_of(folder):
    data = module_of(folder)
    data.setup()
    return data._source(data.train_items)


def take(stream, count):
    return [batch for batch, _ in zip(stream, range(count), strict=False)]


def test_two_ranks_see_the_items_of_one(folder):
    source = source_of(folder)
    one = take(TrainBatches(source, Cursor(8), Share(4)), 4)
    two = [take(TrainBatches(source, Cursor(8), Share(2, rank, 2)), 4) for rank in range(2)]
    for whole, left, right in zip(one, *two, strict=True):
        assert left.index.tolist() == whole.index.tolist()[::2] and right.index.tolist() == whole.index.tolist()[1::2]
        assert torch.equal(left.target.video, whole.target.video[::2])
        assert torch.equal(right.conditions.history, whole.conditions.history[1::2])
        assert torch.equal(right.conditions.todo.ids, whole.conditions.todo.ids[1::2])


def test_ranks_validate_equally_often(folder):
    source = source_of(folder)
    lists = [[b.index.tolist() for b in FixedBatches(source, 10, Share(4, rank, 2))] for rank in range(2)]
    assert len(lists[0]) == len(lists[1]) == len(FixedBatches(source, 10, Share(4, 0, 2))) == 2
    assert {p for batches in lists for batch in batches for p in batch} == set(range(10))


def test_every_stage_gets_its_batches(folder):
    speech, rollout = module_of(folder, "orchestrator"), module_of(folder, "rollout")
    speech.setup()
    rollout.setup()
    batch = next(iter(speech.train_dataloader()))
    assert isinstance(batch, ChunkBatch) and not batch.has_video.any()
    assert speech.fixed_chunks(3).has_video.all()
    streams = next(iter(rollout.train_dataloader()))
    assert isinstance(streams, RolloutBatch) and len(streams) == 4
    assert len(rollout.fixed_streams(3)) == 3 and isinstance(rollout.fixed_chunks(2), ChunkBatch)
    spoken = speech.spoken_clips(2)
    assert [c.words[-1].text for c in spoken] and all(len(c.batch) == 1 for c in spoken)
    assert spoken[0].batch.words[0] == [w.text for w in spoken[0].words] and spoken[0].chunks(9)
    moved = rollout.transfer_batch_to_device(streams, torch.device("cpu"), 0)
    assert moved.words == streams.words and moved.keys == streams.keys
    with pytest.raises(InputError, match="no items for stage 'prepare'"):
        module_of(folder, "prepare")


def test_overfitting_uses_the_first_clips_for_validation_too(folder):
    data = module_of(folder, overfit_clips=2)
    data.setup()
    keys = {k for b in take(data.train_dataloader(), 10) for k in b.keys}
    assert keys == {k for b in data.val_dataloader() for k in b.keys} == {"clip000", "clip001"}


def test_another_order_is_told(folder, caplog):
    data = module_of(folder)
    data.setup()
    data.load_state_dict({"consumed": 12, "seed": 6, "order": data.state_dict()["order"]})
    assert data.consumed == 12 and "sample order has changed" in caplog.text


def test_validation_counts_streams_apart_from_chunks(folder):
    for kind, batches in (("teacher", 3), ("rollout", 2)):
        data = module_of(folder, kind, val_streams=6)
        data.setup()
        assert len(list(data.val_dataloader())) == batches


def test_bad_clips_that_workers_meet_are_counted_in_the_training_process(tmp_path):
    write_store(tmp_path / "train", clips=12, poison=(3, 7))
    write_store(tmp_path / "val", clips=4)
    cfg = DataConfig(batch_size=4, num_workers=2)
    data = LatentDataModule(cfg, tmp_path, CLOCK, WINDOW, SpelledWords(), "teacher", quarantine=tmp_path / "stage")
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "quarantine_train.jsonl").write_text('{"key": "older", "reason": "", "file": ""}\n')
    data.prepare_data()
    data.setup()
    batches = iter(data.train_dataloader())
    keys = {key for _ in range(24) for key in next(batches).keys}
    assert data.quarantined == 2 and not keys & {"clip003", "clip007", "older"}
    assert len((tmp_path / "stage" / "quarantine_train.jsonl").read_text().splitlines()) in (2, 3, 4)


def test_an_orchestrators_batches_carry_no_pictures_and_the_same_sound(folder):
    heard, seen = module_of(folder, "orchestrator"), module_of(folder)
    for module in (heard, seen):
        module.setup()
    one, other = (next(iter(m.train_dataloader())) for m in (heard, seen))
    assert one.index.tolist() == other.index.tolist()
    torch.testing.assert_close(one.target.audio, other.target.audio, rtol=0, atol=0)
    assert not one.has_video.any() and other.has_video.all()
    assert one.target.video[0].numel() == CLOCK.video_latents < other.target.video[0].numel()
    assert heard.fixed_chunks(2).target.video.shape[1:] == other.target.video.shape[1:]  # what is shown has pictures
