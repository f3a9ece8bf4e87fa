"""Writes the Parquet fixtures of train/data/rows/testdata; what they hold is repeated in its parquet_test.go."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Value

OUT = Path(__file__).resolve().parents[2] / "train" / "data" / "rows" / "testdata"


def main():
    OUT.mkdir(parents=True, exist_ok=True)

    # As a hub data set is stored: class names in the metadata, a row group per 3 rows.
    texts = [f"review {i}, naïve “quotes” 日本 🙂\nline 2" for i in range(8)]
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    dataset = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(8)]}, features=features)
    dataset.to_parquet(OUT / "hf_classlabel.parquet", batch_size=3)

    # Nested columns: chats, token ids, structs, nulls, and what is nested too deep.
    table = pa.table(
        {
            "messages": pa.array(
                [
                    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
                    [
                        {"role": "system", "content": "Be brief."},
                        {"role": "user", "content": "1+1?"},
                        {"role": "assistant", "content": "2"},
                    ],
                    [],
                    None,
                ],
                type=pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
            ),
            "input_ids": pa.array([[1, 2, 3], [4], [], None], type=pa.list_(pa.int32())),
            "meta": pa.array(
                [{"stars": 5, "lang": "en"}, {"stars": None, "lang": "de"}, None, {"stars": 1, "lang": None}]
            ),
            "score": pa.array([0.5, None, float("nan"), -1.0]),
            "flag": pa.array([True, False, None, True]),
            "deep": pa.array([[[1], [2]], [], None, [[]]], type=pa.list_(pa.list_(pa.int64()))),
            "dict": pa.array(["a", "b", "a", None]).dictionary_encode(),
        }
    )
    for codec in ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]:
        pq.write_table(table, OUT / f"nested_{codec}.parquet", compression=codec)

    # Bytes that are not UTF-8 under a string type.
    raw = pa.array([b"fine", b"caf\xe9"], type=pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": raw, "label": pa.array([0, 1])}), OUT / "latin1.parquet")


if __name__ == "__main__":
    main()
