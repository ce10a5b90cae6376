"""Plain views as two products, which is how they are exported, beside the views themselves."""

from pathlib import Path

import pytest
import torch

from sbformat.manifest import open_manifest
from sbtrain.batch import Batch
from sbtrain.export.encoder import PlainView
from sbtrain.methods.views import Views


@pytest.mark.parametrize("augmentation", ["simsiam_cifar", "dino_multicrop"], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [0, 32, 80])
def test_products_are_the_plain_view_at_any_size(augmentation: str, size: int, shards: Path) -> None:
    manifest = open_manifest(shards, "rgb")
    views = Views(manifest, augmentation, size, 0)
    stored = manifest.image_size
    image = torch.randint(0, 256, (3, 3, stored, stored), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.zeros(3, dtype=torch.int64), {"image": image})

    torch.testing.assert_close(PlainView(views, stored).plain(batch), views.plain(batch), rtol=0, atol=1e-5)
