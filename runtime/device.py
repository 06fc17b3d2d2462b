"""What a device can do: which one, in which precision, with which kernels; and what to say when its memory is full."""

from contextlib import contextmanager

import torch
from torch import nn

from runtime.errors import UserError

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name):
    """``auto`` or a torch device's name to a device that works. Raises UserError where there is none."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        tensor = torch.zeros(1, device=name)
        tensor.item()  # what lies on the device "meta" has no values
        return tensor.device
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # some come as modules
        reason = str(error).splitlines()[0].partition(". ")[0]
        if reason.startswith("Expected one of"):  # and a list of all that torch was ever written for
            reason = "there is none of that name; give auto, cpu, cuda, cuda:1, mps or another of torch's"
        raise UserError(f"--device {name} is not available here: {reason}") from error


def flush_denormals():
    """From here on a CPU takes numbers below the least normal one of their type (1.2e-38 in float32) as 0.

    The softmax of an attention that is not scaled is full of them, and an Intel CPU takes a hundred times as long for
    a product with one (docs/performance-notes.md). To be called before anything else: torch's other threads take what
    holds in the first one when they start.
    """
    torch.set_flush_denormal(True)


def set_tf32(on):
    """Whether a GPU may compute products of float32 in TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on


@contextmanager
def swapped(module, name, value):
    """Inside, ``module`` has another ``name``."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def without_tf32():
    """Inside, a GPU multiplies matrices of float32 in all its digits."""
    return swapped(torch.backends.cuda.matmul, "allow_tf32", False)


def tuned_kernels(on):
    """Inside, cuDNN tries out its convolutions for each new size of images, or not: worth it where sizes repeat."""
    return swapped(torch.backends.cudnn, "benchmark", on)


def pick_amp(amp, device):
    """``--amp``, where ``auto`` is bf16 on a device that has instructions for it, and off elsewhere."""
    if amp != "auto":
        return amp
    return "bf16" if computes_bf16(device) else "off"


def pick_translation_amp(amp, in_training, device, domains):
    """The precision in which a model of ``domains`` {"A", "B"} translates: ``amp``, where "trained" is ``in_training``.
    But that is float32 where ``device`` has no fast instructions for it, and for images of more than 8 bits: bf16 has
    no more than 8, and fp16 has 11."""
    if amp == "trained":
        slow = in_training in AMP_TYPES and not computes(in_training, device)
        amp = "off" if slow or any_deep(domains) else in_training
    return pick_amp(amp, device)


def set_translation_precision(amp, training, device, domains):
    """Translate a model of ``domains`` in TF32 where its training was, whose options are ``training``, and return its
    precision as above. Images of more than 8 bits are not for TF32: its products have 11 as well."""
    set_tf32(training["tf32"] and not any_deep(domains))
    return pick_translation_amp(amp, training["amp"], device, domains)


@contextmanager
def tf32_for(domains):
    """Inside, a GPU computes in TF32 only if no image of ``domains`` has more than 8 bits."""
    fitting = not any_deep(domains)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with (
        swapped(cudnn, "allow_tf32", cudnn.allow_tf32 and fitting),
        swapped(matmul, "allow_tf32", matmul.allow_tf32 and fitting),
    ):
        yield


def any_deep(domains):
    return any(domain.deep for domain in domains.values())


def computes(amp, device):
    """Whether ``device`` has fast instructions for ``amp``, "bf16" or "fp16". (CPUs that have some for fp16 have not
    been measured, and count as without.)"""
    if amp == "fp16":
        return device.type != "cpu"
    return computes_bf16(device)


def computes_bf16(device):
    """Whether ``device`` multiplies matrices in bf16 by instructions of its own, which on a CPU means AMX, or
    AVX512-BF16 on an AMD processor.

    Without, bf16 is slower than float32, even with an Intel's AVX512-BF16 (docs/performance-notes.md): it makes as many
    products in a cycle as in float32, an AMD's twice as many. (ARM processors, some of which have such instructions,
    have not been measured.)
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    amds_bf16 = cpu_has("avx512_bf16") and cpu_has("sse4a")  # which AMD's processors alone have
    return onednn and (cpu_has("amx_bf16") or amds_bf16)


def cpu_has(instructions):
    """Whether the CPU has ``instructions``, by torch's name for them."""
    return torch.cpu.get_capabilities().get(instructions, False)


def has_avx2_alone():
    """Whether the processor, or what torch may use of it, has AVX2 and not AVX-512."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def multiplies_slowly():
    """Whether the CPU convolves twice as fast as it multiplies matrices, in float32: an AMD's with AVX-VNNI, from Zen 5
    on. It computes with AVX-512 at full width; torch's convolutions use that, its products, those of MKL, do not."""
    return cpu_has("sse4a") and cpu_has("avx_vnni")


def arithmetic(device, amp):
    """What decides the last bits of a result, in words: the kind of ``device``, and the precision ``amp``."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        processor = torch.cpu.get_capabilities().get("cpu_name", "processor")
        kind = f"{device.type} ({processor}, {torch.backends.cpu.get_cpu_capability()})"
    return f"{kind} in {'float32' if amp == 'off' else amp}"


def autocast(device, amp):
    """Inside, networks compute in the type of ``amp``: "off", "bf16" or "fp16"."""
    return torch.autocast(device.type, AMP_TYPES.get(amp), enabled=amp != "off")


def memory_format(network, device):
    """The order of memory in which ``network`` computes fastest on ``device``.

    Tensor cores want channels last (NVIDIA, Convolutional Layers User's Guide, "Tensor Layouts"). But torch's instance
    norm views N×C×H×W as 1×NC×H×W, for which it copies to the usual order and back, so that networks with one lose
    more than they gain; ours does so on a GPU alone. On a CPU all gain where it has AVX2 or AVX-512, in float32 and in
    bf16 (docs/performance-notes.md), and on others those with batch norm.
    """
    kinds = {type(module) for module in network.modules()}
    copies = any(issubclass(kind, nn.InstanceNorm2d) for kind in kinds)
    batch_norm = any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)
    wide = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    gains = not copies if device.type == "cuda" else batch_norm or wide
    return torch.channels_last if gains else torch.contiguous_format


def ran_out_of_memory(error):
    """Whether an exception means that a device, or the machine, had no memory left."""
    words = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in words


def smaller_crop(options):
    """Flags for about half the crop, in a size that every generator and every critic takes: a list, empty where there
    is none."""
    if options.preprocess == "none":  # the images are the crop
        return []
    crop = options.img_height, options.img_width
    height, width = (min(side, max(32, side // 16 * 8)) for side in crop)
    return [f"--img_height {height} --img_width {width}"] if (height, width) != crop else []


def fewer_filters(options):
    """Flags for half the filters of both networks."""
    return f"--ngf {max(1, options.ngf // 2)} --ndf {max(1, options.ndf // 2)}"


def memory_advice(options, device):
    """One line: what the run used, and the flags that would lessen it, the cheapest in quality first."""
    flags = [] if options.checkpoint_activations or options.norm == "batch" else ["--checkpoint_activations"]
    flags += [f"--batch_size {options.batch_size // 2}"] if options.batch_size > 1 else []
    flags += [*smaller_crop(options), f"in a new run {fewer_filters(options)}"]
    peak = f"; at its peak {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
    return (
        f"{device} ran out of memory with --batch_size {options.batch_size}, crops of {options.img_width}×"
        f"{options.img_height}, --ngf {options.ngf}, --ndf {options.ndf}{peak}. "
        f"What helps, the cheapest first: {'; '.join(flags)}"
    )


@contextmanager
def explained_errors(options, device, how_to_go_on):
    """Turns full memory, and a compiler that does not work, into a UserError that names the flags that help, and says
    ``how_to_go_on`` with these options: a step that has run out of memory is not saved."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if ran_out_of_memory(error):
            raise UserError(f"{memory_advice(options, device)}; {how_to_go_on(options)}") from error
        explain_compiler(error)
        raise


def explain_compiler(error):
    """Raise UserError where ``error`` is that of a compiler which does not work."""
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        raise UserError(f"--compile does not work here ({str(error).splitlines()[0]}); leave it out") from error
