"""What a training step of each encoder takes in memory, at its full size with random weights.

    python benchmarks/encoder_memory.py
    python benchmarks/encoder_memory.py --encoders data2vec --batch 2

On a CPU the peak is the most that was resident of the process; on CUDA it is what PyTorch
allocated. Clips of speech have three seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from typing import Any

ENCODERS = {"roberta-large": "text", "data2vec": "audio", "timesformer": "video"}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "lora, rank 8": {"lora": (8, 16.0)},
}
SECONDS, RATE, TOKENS = 3, 16_000, 128


def make(encoder: str, batch: int, device: Any) -> tuple[Any, dict[str, Any]]:
    """A model in its published size and one batch for it."""
    import torch
    import transformers

    if encoder == "data2vec":
        model = transformers.Data2VecAudioModel(transformers.Data2VecAudioConfig())
        return model, {"input_values": torch.randn(batch, SECONDS * RATE, device=device)}
    if encoder == "timesformer":
        model = transformers.TimesformerModel(transformers.TimesformerConfig())
        return model, {"pixel_values": torch.randn(batch, 8, 3, 224, 224, device=device)}
    config = transformers.RobertaConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
    )
    model = transformers.RobertaModel(config, add_pooling_layer=False)
    return model, {"input_ids": torch.randint(5, 9000, (batch, TOKENS), device=device)}


def measure(encoder: str, option: str, batch: int) -> dict[str, Any]:
    """Two steps of AdamW: the peak, and the samples per second of the second."""
    import torch

    from magtkd.encoders.adapt import adapt
    from magtkd.memory import MemoryPeak

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model, inputs = make(encoder, batch, device)
    options = {"dropout": 0.1, "gradient_checkpointing": False, "lora": None} | OPTIONS[option]
    adapt(ENCODERS[encoder], model, **options)
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    with MemoryPeak(device) as peak:
        for _ in range(2):
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = model(**inputs).last_hidden_state[:, 0].float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "peak_gib": peak.num_bytes / 2**30,
        "samples_per_second": batch / seconds,
        "trained_millions": sum(p.numel() for p in trained) / 1e6,
    }


def main() -> None:
    import common  # which loads the search; `gpu_sizes.py` uses the rest without it

    parser = common.arguments(__doc__)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    if options.child:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = measure(**json.loads(options.child))
        print(json.dumps(answer))
        return
    result: dict[str, Any] = {"machine": common.machine(), "measured": []}
    rows = []
    for encoder in options.encoders:
        for option in OPTIONS:
            child = {"encoder": encoder, "option": option, "batch": options.batch}
            measured = common.in_process(__file__, child)
            result["measured"].append(child | measured)
            rows.append(
                [encoder, option, *(measured[k] for k in ("peak_gib", "samples_per_second"))]
            )
    device = result["measured"][0]["device"]
    columns = ["encoder", "option", "peak GiB", "samples/s"]
    title = f"memory of a step ({device}, batch {options.batch})"
    common.publish(title, result, columns, rows, options.out)


if __name__ == "__main__":
    main()
