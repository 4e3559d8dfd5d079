"""Runs and times a model on a board, and tells what state the board is in.

One file, copied to the board, run there and removed. It needs the standard library; timing and
computing also need numpy and a runtime: ai_edge_litert or tflite_runtime for ``.tflite``,
onnxruntime for ``.onnx``. It runs on Python 3.8 to 3.13; ``facts``, ``watch`` and ``copy`` also on
3.6.

    python3 agent.py facts
    python3 agent.py time MODEL [--threads 4] [--warmup 10] [--runs 60] [--seconds 3]
    python3 agent.py compute MODEL INPUTS.npz OUTPUTS.npz
    python3 agent.py watch -- trtexec --onnx=model.onnx
    python3 agent.py copy

Each prints one line of JSON, the last of its output. Facts are texts as the board tells them; what
they mean is decided where they are sent.
"""

import argparse
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # Before ONNX Runtime is loaded, which reports its use.

FILES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/device-tree/model",
    "/proc/device-tree/compatible",
    "/etc/os-release",
    "/etc/nv_tegra_release",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_max_freq",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/thermal_zone*/temp",
    "/sys/class/devfreq/*/cur_freq",
    "/sys/class/devfreq/*/min_freq",
    "/sys/class/devfreq/*/max_freq",
    "/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in[0-9]_label",
    "/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in[0-9]_input",
    "/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/curr[0-9]_input",
)
"""Patterns of what is read; what a board lacks is left out."""

SWITCHES = {"board": "session.qdqisint8allowed", "host": "session.x64quantprecision"}
"""Of ONNX Runtime, by the form of an int8 file. Without the first x86 computes with uint8
activations, which is not what a board does; without the second it saturates without VNNI."""

COMMANDS = (
    ("vcgencmd", "get_throttled"),
    ("vcgencmd", "measure_clock", "arm"),
    ("vcgencmd", "measure_temp"),
    ("vcgencmd", "pmic_read_adc"),
    ("nvpmodel", "-q"),
    ("dpkg-query", "-W", "tensorrt", "nvidia-jetpack", "libnvinfer-bin"),
)
"""What is asked where the program exists; none changes anything."""

RUNTIMES = {
    ".tflite": (
        ("ai_edge_litert.interpreter", "ai_edge_litert", "litert"),
        ("tflite_runtime.interpreter", "tflite_runtime", "tflite-runtime"),
    ),
    ".onnx": (("onnxruntime", "onnxruntime", "onnxruntime"),),
}
TRTEXEC = ("/usr/src/tensorrt/bin/trtexec", "trtexec")
TIMES_KEPT = 10000
COPIED_BYTES = 64 << 20  # More than any cache, and little enough for a board of 512 MB.


class AgentError(Exception):
    """What was asked cannot be done here."""


def facts():
    """Returns the texts of files and the answers of programs, by path and by command."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    found["system"] = " ".join(platform.uname())
    for pattern in FILES:
        for path in sorted(glob.glob(pattern)):
            text = _read(path)
            if text:
                found[path] = text
    for command in COMMANDS:
        text = _answer(command)
        if text:
            found[" ".join(command)] = text
    trtexec = next((p for p in TRTEXEC if shutil.which(p)), None)
    if trtexec:
        found["trtexec"] = trtexec
    for candidates in RUNTIMES.values():
        for _, package, name in candidates:
            version = _version(package)
            if version:
                found["runtime " + name] = version
    return found


def time_model(options):
    """Returns the seconds of every run with all that is needed to judge them."""
    before, log, contract = facts(), _Captured(), _contract(options.contract)
    with log:
        began = time.perf_counter()
        model = _open(options.model, options.threads, contract)
        opened = time.perf_counter() - began
    inputs = _inputs(model, contract)
    pinned = _pin(options.cpus or _fastest(options.threads))
    with _Tegrastats() as watched:
        with log:
            first = _timed(model, inputs)
        busy, own = _jiffies(), time.process_time()
        warm_until = time.perf_counter() + options.warmup_seconds
        done = 0
        while done < options.warmup or time.perf_counter() < warm_until:
            _timed(model, inputs)
            done += 1
        runs = []  # type: list[float]
        end = time.perf_counter() + options.seconds
        # A model of seconds would take minutes: past the limit ten runs are enough.
        limit = end + options.limit
        while len(runs) < options.runs or time.perf_counter() < end:
            runs.append(_timed(model, inputs))
            if len(runs) >= TIMES_KEPT or (time.perf_counter() > limit and len(runs) >= 10):
                break
        others = _others(busy, own)
    return {
        "runtime": model.runtime,
        "runtime_version": model.version,
        "delegate": _delegate(model, log.text),
        "threads": options.threads,
        "cpus": pinned,
        "open_s": opened,
        "first_s": first,
        "warmup": done,
        "inference_s": runs,
        "pre_s": model.pre_times[-len(runs) :],
        "post_s": model.post_times[-len(runs) :],
        "others_busy": others,
        "peak_rss_bytes": _peak_memory(),
        "log": log.text[-4000:],
        "tegrastats": watched.lines,
        "before": before,
        "after": facts(),
    }


def compute(options):
    """Computes the outputs of every input, and writes them."""
    import numpy

    model = _open(options.model, options.threads, _contract(options.contract))
    with numpy.load(options.inputs) as archive:
        found = {}
        for name in archive.files:
            for index, output in enumerate(model.run(archive[name])):
                found["%s/%d" % (name, index)] = output
    numpy.savez(options.outputs, **found)
    return {"runtime": model.runtime, "runtime_version": model.version, "arrays": len(found)}


def watch(options):
    """Returns what a program printed, and the state of the board before and after it."""
    before = facts()
    with _Tegrastats() as watched:
        began = time.perf_counter()
        done = subprocess.run(
            options.program,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        took = time.perf_counter() - began
    return {
        "status": done.returncode,
        "seconds": took,
        "output": done.stdout.decode("utf-8", "replace"),
        "tegrastats": watched.lines,
        "before": before,
        "after": facts(),
    }


class _Model:
    """An opened model: what it is called, what it takes and how it runs."""

    def __init__(self, runtime, version, inputs, run):
        self.runtime, self.version, self.inputs, self.run = runtime, version, inputs, run
        self.pre, self.post = None, None
        self.pre_times, self.post_times = [], []


def _contract(path):
    if not path:
        return None
    with open(path) as stream:
        return json.load(stream)


def _open(path, threads, contract):
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in RUNTIMES:
        raise AgentError("%s: legal: a file that ends in .tflite or .onnx" % path)
    missing = []
    for module, package, name in RUNTIMES[suffix]:
        try:
            runtime = __import__(module, fromlist=["_"])
        except Exception as error:  # One built for another numpy raises nearly anything.
            missing.append("%s: %s" % (name, error))
            continue
        opener = _open_tflite if suffix == ".tflite" else _open_onnx
        try:
            inputs, run = opener(runtime, path, threads, contract)
        except Exception as error:  # Runtimes have no common error.
            raise AgentError("%s: refused by %s: %s" % (path, name, error))
        return _Model(name, _version(package), inputs, _naming(path, name, run))
    raise AgentError(
        "no runtime for %s in %s (%s); --python names another Python of this board"
        % (suffix, sys.executable, "; ".join(missing))
    )


def _naming(path, name, run):
    """Returns what runs the file, and names it where its runtime refuses only then."""

    def named(*values):
        try:
            return run(*values)
        except Exception as error:  # Runtimes have no common error.
            raise AgentError("%s: refused by %s: %s" % (path, name, error))

    return named


def _open_tflite(runtime, path, threads, _):
    interpreter = runtime.Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    outputs = [item["index"] for item in interpreter.get_output_details()]

    def run(*values):
        for item, value in zip(details, values):
            interpreter.set_tensor(item["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return [(tuple(int(n) for n in d["shape"]), d["dtype"]) for d in details], run


def _open_onnx(runtime, path, threads, contract):
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if contract and contract["precision"] == "int8" and contract["form"] in SWITCHES:
        options.add_session_config_entry(SWITCHES[contract["form"]], "1")
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    inputs = [
        (tuple(n if isinstance(n, int) else 1 for n in item.shape), _dtype(item.type))
        for item in session.get_inputs()
    ]
    return inputs, lambda *values: session.run(None, dict(zip(names, values)))


def _dtype(text):
    import numpy

    known = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    name = known.get(text) or text[len("tensor(") : -1]
    return numpy.dtype(name)


def _inputs(model, contract):
    """Returns inputs of noise; with a contract, a model that is fed images and decoded is set up.

    Timing does not depend on values, but a constant would let caches and branches pretend.
    """
    import numpy

    rng, values = numpy.random.RandomState(0), []
    for shape, dtype in model.inputs:
        dtype = numpy.dtype(dtype)
        if dtype.kind == "f":
            values.append(rng.uniform(-1, 1, shape).astype(dtype))
        else:
            values.append(rng.randint(0, 127, shape).astype(dtype))
    if contract:
        spec = contract["input"]
        size = (spec["height"], spec["width"], spec["channels"])
        image, table = rng.randint(0, 256, size).astype("uint8"), _table(spec, numpy)
        axes = (2, 0, 1) if spec["layout"] == "NCHW" else (0, 1, 2)
        channels = numpy.arange(size[2])
        model.pre = lambda: numpy.ascontiguousarray(table[image, channels].transpose(axes)[None])
        model.post = _decoder(contract)
    return values


def _table(spec, numpy):
    """Returns ``(256, C)``: what a pixel becomes in the input, so that filling it is one look."""
    pixels = numpy.arange(256.0)[:, None] + numpy.zeros(spec["channels"])
    values = (pixels - spec["mean"]) / spec["std"]
    if spec["dtype"] in ("int8", "uint8"):
        low = -128 if spec["dtype"] == "int8" else 0
        values = numpy.rint(values / spec["scale"]) + spec["zero_point"]
        values = numpy.clip(values, low, low + 255)
    return values.astype(spec["dtype"])


def _decoder(contract):
    """Returns what makes detections of outputs, None without the decoder beside this file."""
    try:
        import decoder  # type: ignore[import-not-found]
    except ImportError:
        return None
    if contract.get("decoding", {}).get("decoder", "none") == "none":
        return None
    return lambda outputs: decoder.detect(outputs, contract)


def _timed(model, inputs):
    """Returns the seconds of one inference; those before and after it are noted with the model."""
    if model.pre:
        began = time.perf_counter()
        inputs = [model.pre()]
        model.pre_times.append(time.perf_counter() - began)
    began = time.perf_counter()
    outputs = model.run(*inputs)
    took = time.perf_counter() - began
    if model.post:
        began = time.perf_counter()
        model.post(outputs)
        model.post_times.append(time.perf_counter() - began)
    return took


def _delegate(model, log):
    """Returns what computes, as the runtime itself said it."""
    if model.runtime == "onnxruntime":
        return "cpu"
    if re.search(r"XNNPACK delegate for CPU", log):
        return "xnnpack"
    return "builtin"


def _fastest(count):
    """Returns the CPUs with the highest clock among those this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return []

    def clock(cpu):
        text = _read("/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq" % cpu)
        return int(text) if text.isdigit() else 0

    return sorted(sorted(os.sched_getaffinity(0), key=lambda cpu: (-clock(cpu), cpu))[:count])


def _pin(cpus):
    """Keeps every thread of this process on the CPUs: the runtime's workers exist already."""
    if not cpus:
        return []
    for entry in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(entry), cpus)
        except OSError as error:
            if not os.path.exists("/proc/self/task/" + entry):
                continue  # It ended in between.
            raise AgentError("CPUs %s: %s" % (",".join(map(str, cpus)), error))
    return list(cpus)


def _jiffies():
    """Returns the seconds that all CPUs together were busy, None where that is not told."""
    fields = _read("/proc/stat").splitlines()[:1]
    if not fields or not hasattr(os, "sysconf"):
        return None
    numbers = [int(text) for text in fields[0].split()[1:]]
    idle = numbers[3] + numbers[4]
    return (sum(numbers[:8]) - idle) / os.sysconf("SC_CLK_TCK"), time.perf_counter()


def _others(before, own):
    """Returns how many CPUs other processes kept busy since, None where that is not told."""
    after = _jiffies()
    if before is None or after is None:
        return None
    mine = time.process_time() - own
    return max(0.0, (after[0] - before[0] - mine) / max(1e-9, after[1] - before[1]))


def _peak_memory():
    match = re.search(r"VmHWM:\s*(\d+) kB", _read("/proc/self/status"))
    return 1024 * int(match.group(1)) if match else None


class _Captured:
    """What native code writes to standard error while it is entered."""

    def __init__(self):
        self.text = ""

    def __enter__(self):
        sys.stderr.flush()
        self._file, self._kept = tempfile.TemporaryFile(), os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_):
        os.dup2(self._kept, 2)
        os.close(self._kept)
        self._file.seek(0)
        self.text += self._file.read().decode("utf-8", "replace")
        self._file.close()


class _Tegrastats:
    """What tegrastats says while it is entered; nothing on boards without it."""

    def __init__(self):
        self.lines, self._process = [], None

    def __enter__(self):
        if shutil.which("tegrastats"):
            self._process = subprocess.Popen(
                ["tegrastats", "--interval", "200"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
        return self

    def __exit__(self, *_):
        if self._process:
            self._process.terminate()
            text = self._process.communicate()[0].decode("utf-8", "replace")
            self.lines = text.splitlines()[-200:]


def _answer(command):
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def _read(path):
    try:
        with open(path, "rb") as stream:
            return stream.read(1 << 20).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _version(package):
    """Returns the version of an installed package without importing it, '' where it is not.

    ONNX Runtime comes in packages of many names, ``onnxruntime_gpu`` among them.
    """
    pattern = re.compile(r"^%s(?:_[a-z]+)*-(.+?)\.(dist|egg)-info" % package, re.IGNORECASE)
    for folder in sys.path:
        if os.path.isdir(folder):
            for entry in os.listdir(folder):
                match = pattern.match(entry)
                if match and os.path.isdir(os.path.join(folder, package)):
                    return match.group(1)
    return ""


def _numbers(text):
    return [int(part) for part in text.split(",")]


def copied():
    """Returns the bytes that the fastest core copies: the best of twelve passes over 64 MiB."""
    _pin(_fastest(1))
    source = bytearray(COPIED_BYTES)
    target = memoryview(bytearray(COPIED_BYTES))
    times = []
    for _ in range(12):
        began = time.perf_counter()
        target[:] = source
        times.append(time.perf_counter() - began)
    return {"copied_bytes_s": COPIED_BYTES / min(times)}


def _parser():
    parser = argparse.ArgumentParser(description="Runs and times a model on a board.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("facts").set_defaults(act=lambda options: facts())
    timing = commands.add_parser("time")
    timing.add_argument("model")
    timing.add_argument("--threads", type=int, default=1)
    timing.add_argument("--warmup", type=int, default=10)
    timing.add_argument("--warmup-seconds", type=float, default=0.5)
    timing.add_argument("--runs", type=int, default=60)
    timing.add_argument("--seconds", type=float, default=3.0, help="at least so long")
    timing.add_argument("--limit", type=float, default=120.0, help="seconds after which it ends")
    timing.add_argument("--cpus", type=_numbers, help="such as 4,5,6,7; the fastest by default")
    timing.add_argument("--contract", help="contract of the file, to time images in, boxes out")
    timing.set_defaults(act=time_model)
    computing = commands.add_parser("compute")
    computing.add_argument("model")
    computing.add_argument("inputs")
    computing.add_argument("outputs")
    computing.add_argument("--threads", type=int, default=1)
    computing.add_argument("--contract", help="contract of the file")
    computing.set_defaults(act=compute)
    commands.add_parser("copy").set_defaults(act=lambda options: copied())
    watching = commands.add_parser("watch")
    watching.add_argument("program", nargs=argparse.REMAINDER)
    watching.set_defaults(act=watch)
    return parser


def main():
    """Prints one line of JSON; returns 2 where what was asked cannot be done."""
    parser = _parser()
    options = parser.parse_args()
    if not options.command:
        parser.error("a command is missing")
    if options.command == "watch" and options.program[:1] == ["--"]:
        options.program = options.program[1:]
    try:
        result = options.act(options)
    except AgentError as error:
        # One line, for the other side shows the last one: runtimes end in a detail of a tensor.
        print("error: %s" % " ".join(str(error).split()), file=sys.stderr)
        return 2
    sys.stdout.flush()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
