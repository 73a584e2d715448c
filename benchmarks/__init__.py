"""Measured comparisons with named peers, each one command: `unscan bench NAME`."""

BENCHMARKS = {
    "neurons": "a training pass of one layer of leaky neurons: fused kernels, loops, snnTorch",
    "training": "the training forms of one spiking neuron by length: loop, SLTT, SDN, convolution, annealed, exact",
    "state_space": "a training pass of S4D: fused scan, FFT, step loop",
    "memory_scan": "a training pass of a matrix memory: fused, chunked, loop, snnTorch's scan",
    "delta_rule": "a training pass of the gated delta rule: fused, chunked, loop",
    "memory": "memory of a training pass at 16 384 steps, neuron by neuron",
    "ablation": "training forms, decays and thresholds of one network on sequential MNIST",
    "recall": "associative recall by number of pairs: three generations of memory",
    "sparsity": "a trained matrix memory made sparse: accuracy and operations by keys and values kept",
    "scale": "a SpikingSSM of 75 M parameters traced, compiled, saved and loaded: seconds and memory",
    "memory_inference": "a step of a sparse matrix memory: event by event, onnxruntime, torch",
    "sparse_fan_out": "a step of sparsely connected layers by width, and the density at which it breaks even",
    "c_inference": "a network of whole numbers in C: gcc, the event executor, onnxruntime",
    "stream": "a sensor's loop: a step of a stream, beside the executors' own",
    "convolution": "event-driven inference of a convolutional network: the event executor, onnxruntime, torch",
    "inference": "event-driven inference: the event executor, onnxruntime, and five frameworks",
    "activity": "what a step costs against how much fires, and against the size of the network: a plot with a fit",
    "gather": "the kernel that adds the weights of those that fired, against the limit of the machine",
    "density": "the share of neurons that send from which a dense product is cheaper than their events",
    "counting": "what counting operations costs a run of the event executor",
}
