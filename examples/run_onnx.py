"""Run an ONNX file that unscan wrote, in either form, by onnxruntime and numpy alone: all that it takes is in the file.

`python examples/run_onnx.py model.onnx [input.npy]`; the input is (T, B, ...), random spikes where there is none.
"""

import json
import sys

import numpy as np
import onnxruntime

# It warns of every input that may be left out: the states, which start in the file.
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options)
known = session.get_modelmeta().custom_metadata_map
taken, given = json.loads(known["unscan.input"]), json.loads(known["unscan.output"])
x = np.load(sys.argv[2]) if sys.argv[2:] else np.random.default_rng(0).random((20, 1, *taken["shape"])) < 0.2
x = x.astype(taken["dtype"])
if known["unscan.form"] == "scan":
    y = session.run(["y"], {"x": x})[0]
else:
    y, states, names = np.empty((*x.shape[:2], *given["shape"])), {}, [o.name for o in session.get_outputs()]
    for t, x_t in enumerate(x):
        made = dict(zip(names, session.run(names, {"x": x_t, **states}), strict=True))
        states = {name: made[f"{name}.next"] for name in json.loads(known["unscan.states"])}
        y[t] = made["y"]
print(f"{known['unscan.form']}: x {x.shape} {x.dtype}, y {y.shape} {given['dtype']}; mean of y over time:")
print(y.mean(axis=0)[0].ravel()[:10])
