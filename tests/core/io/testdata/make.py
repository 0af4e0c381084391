"""Makes the files of this folder with h5py and safetensors, so that the tests read what others write."""

import h5py
import numpy as np

with h5py.File("h5py.h5", "w") as f:
    f.create_dataset("tokens", data=np.arange(1000, dtype=np.uint16))
    f.create_dataset("wide", data=np.arange(0, 3_000_000_000, 300_000_000, dtype=np.uint32))
    f.create_dataset("document_starts", data=np.array([0, 10, 500], dtype=np.int64))
    f.create_dataset("compressed", data=np.arange(1000, dtype=np.int32), chunks=(100,), compression="gzip",
                     shuffle=True, fletcher32=True)
    f.create_dataset("big_endian", data=np.arange(5, dtype=">f8"))
    f.create_dataset("group/deep/floats", data=np.linspace(0, 1, 5, dtype=np.float32))
    f.create_dataset("matrix", data=np.zeros((2, 3), dtype=np.float32))
    f.create_dataset("text", data=["a", "b"])
    f.create_dataset("empty", data=np.zeros(0, dtype=np.int64))
    f.create_dataset("tokenizer_json", data=np.frombuffer(b'{"a": 1}', dtype=np.uint8))
    f.attrs["vocab_size"] = 32000
    f.attrs["ratio"] = 0.5
    f.attrs["tokenizer_sha256"] = "abc\u00e9"
    f.attrs["fixed"] = np.bytes_(b"fixed text")
    f.attrs["list"] = [1, 2, 3]

with h5py.File("soft_link.h5", "w") as f:
    f.create_dataset("a", data=np.arange(3, dtype=np.int64))
    f["tokens"] = h5py.SoftLink("/a")
with h5py.File("external_link.h5", "w") as f:
    f["tokens"] = h5py.ExternalLink("h5py.h5", "/tokens")
with h5py.File("external_storage.h5", "w") as f:
    f.create_dataset("tokens", shape=(10,), dtype=np.uint8, external=[("/etc/hostname", 0, 10)])
with h5py.File("virtual.h5", "w") as f:
    layout = h5py.VirtualLayout(shape=(1000,), dtype=np.uint16)
    layout[:] = h5py.VirtualSource("h5py.h5", "tokens", shape=(1000,))
    f.create_virtual_dataset("tokens", layout)
with h5py.File("never_written.h5", "w") as f:
    f.create_dataset("tokens", shape=(1 << 40,), dtype=np.uint16, chunks=(1 << 20,))
with h5py.File("hole.h5", "w") as f:
    d = f.create_dataset("tokens", shape=(3000,), dtype=np.uint16, chunks=(1000,), compression="gzip")
    d[0:1000] = 1
    d[2000:3000] = 2
with h5py.File("other_filter.h5", "w") as f:
    f.create_dataset("tokens", data=np.arange(1000, dtype=np.uint16), chunks=(100,), compression="lzf")

from safetensors.numpy import save_file

save_file({
    "b.f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.i64": np.array([1, -2], dtype=np.int64),
    "c.u8": np.array([7, 8, 9], dtype=np.uint8),
    "d.f16": np.array([[1.5]], dtype=np.float16),
    "e.scalar": np.array(2.5, dtype=np.float64),
    "f.empty": np.zeros((0, 4), dtype=np.float32),
    "g.bool": np.array([True, False]),
    "\u00e9.i32": np.array([3], dtype=np.int32),
}, "python.safetensors", metadata={"format": "pt"})
save_file({"a.u64": np.array([1 << 63], dtype=np.uint64)}, "other_dtype.safetensors")
