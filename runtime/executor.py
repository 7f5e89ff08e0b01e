"""Plays an artefact on a device: memory, pipelines, runs.

A run is one submission: copies of inputs that are on the device already, the dispatches, copies
of what is read back. What can be made beforehand is made once and kept: pipelines, bind groups,
and the order of commands for each set of outputs. Whatever fails before the submission leaves
parameters and state as they were.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from asg.artefact import Artefact, Dispatch, Entry, Slot, Step
from asg.closing import Closing
from asg.errors import DeviceLostError, InputError, ReleasedError
from asg.runtime.arrays import as_array, shown, to_words
from asg.runtime.commands import Buffer, Command, Transfer
from asg.runtime.device_array import DeviceArray, padded
from asg.runtime.devices import compile_shaders, device_for
from asg.runtime.inputs import check_names, input_slot, slot_types
from asg.runtime.kernels import choose_variants, shader_of
from asg.runtime.profile import Timing, name_timings, time_steps
from asg.runtime.program import Program, find_entry, plan_program
from asg.runtime.readback import Readback
from asg.runtime.recording import Recorder, Recording, bindable_inputs
from asg.runtime.storage import Storage, limits_needed
from asg.runtime.wgpu_device import Device

_RECORDINGS = 16  # sets of input buffers for which the commands are kept

Observer = Callable[[int, Step], None]


class Executor(Closing):
    """An artefact on a device. Threads may call it; runs of one executor follow each other.

    `device` is another on the same adapter if the artefact needs higher limits than it has.
    `share` is an executor whose parameters and state this one uses instead of its own copy,
    where both lay them out alike.
    """

    def __init__(
        self, artefact: Artefact, device: Device, *, share: Executor | None = None
    ) -> None:
        self.artefact = artefact
        self.device = device = device_for(device, limits_needed(artefact))
        self.name = artefact.name
        self.generation = -1  # counts runs; below zero it is closed
        self._bindable = {
            name: bindable_inputs(artefact, entry) for name, entry in artefact.entries.items()
        }
        self.variants = choose_variants(artefact.kernels, device)
        shaders = [shader_of(artefact.kernels[name], each) for name, each in self.variants.items()]
        lender = share._storage if share is not None else None
        # Weights are uploaded while the kernels compile.
        with ThreadPoolExecutor(1, "asg-compile") as pool:
            compiling = pool.submit(compile_shaders, device, shaders)
            try:
                self._storage: Storage = Storage(artefact, device, lender)
            except BaseException:
                if compiling.exception() is None:
                    device.release_pipelines(compiling.result())
                raise
            try:
                self._pipelines = compiling.result()
            except BaseException:
                self._storage.close()
                raise
        by_name = dict(zip(self.variants, self._pipelines, strict=True))
        buffers = self._storage.buffers
        self._recorder = Recorder(artefact, device, buffers, by_name, self.variants)
        self._lock = threading.RLock()
        self._programs: dict[tuple[str, tuple[str, ...] | None], Program] = {}
        self._recordings: OrderedDict[object, Recording] = OrderedDict()
        self._readbacks: dict[Program, Readback] = {}
        self._loans: list[Buffer] = []
        self.generation = 0

    def __repr__(self) -> str:
        state = "closed" if self.generation < 0 else self.device.description
        return f"<Executor {self.name}: {', '.join(self.artefact.entries)}; {state}>"

    def __del__(self) -> None:
        # At the end of the process the modules that closing needs may be gone already.
        if getattr(self, "generation", -1) >= 0 and not sys.is_finalizing():
            self.close()

    def close(self) -> None:
        """Give back everything on the device; a second call does nothing."""
        with self._lock:
            if self.generation < 0:
                return
            self.generation = -1
            for recording in self._recordings.values():
                self._recorder.release(recording)
            for readback in self._readbacks.values():
                readback.close()
            self._recordings.clear()
            self._readbacks.clear()
            self._end_loans()
            self._recorder.close()
            self._storage.close()
            self.device.release_pipelines(self._pipelines)

    # -- running ------------------------------------------------------------------------------

    def run(
        self,
        entry: str,
        inputs: Mapping[str, object],
        outputs: Iterable[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Run an entry and read back `outputs` (None: all), computing only what they need.

        Updates of state always happen. An input that no wanted output needs may be left out.

        Raises:
            InputError: names, shapes or element types do not fit; nothing has run then.
            DeviceLostError: the device is gone, and the state with it.
        """
        with self._lock:
            program = self._program(entry, outputs)
            last = self._start(program, inputs)
            if program not in self._readbacks:
                self._readbacks[program] = self._storage.readback(program.outputs)
            arrays = self._readbacks[program].fetch(last)
        slots = program.outputs
        return {slot.name: shown(array, slot) for slot, array in zip(slots, arrays, strict=True)}

    def run_on_device(
        self, entry: str, inputs: Mapping[str, object], outputs: Iterable[str] | None = None
    ) -> dict[str, DeviceArray]:
        """Run an entry like `run` and leave the outputs where they are."""
        with self._lock:
            program = self._program(entry, outputs)
            self.device.submit(self._start(program, inputs))
            return {
                slot.name: DeviceArray(self.device, self._storage.buffers[slot.buffer], slot, self)
                for slot in program.outputs
            }

    def run_steps(
        self, entry: str, inputs: Mapping[str, object], observe: Observer
    ) -> dict[str, np.ndarray]:
        """Run an entry step by step, calling `observe(position, step)` after each.

        The observer may call `read_value`. State changes as in any run.
        """
        with self._lock:
            program = self._program(entry, None)
            before, replaced = self._take_inputs(program, inputs)
            self.generation += 1
            self.device.submit(before)
            steps = program.entry.steps
            for position, step in enumerate(steps):
                recording = self._recorder.record(program.entry, [position], replaced)
                for chunk in recording.chunks:
                    self.device.wait(self.device.submit(chunk))
                self._recorder.release(recording)
                observe(position, step)
            arrays = self._storage.read(program.outputs)
        return {slot.name: array for slot, array in zip(program.outputs, arrays, strict=True)}

    def profile(self, entry: str, inputs: Mapping[str, object], repeat: int = 1) -> list[Timing]:
        """Time every step of an entry, the best of `repeat` runs; state is as before afterwards."""
        with self._lock:
            program = self._program(entry, None)
            before, replaced = self._take_inputs(program, inputs)
            updated = [self._storage.slot(name) for name in program.entry.updates]
            saved = self._storage.read(updated)
            self.generation += 1
            groups: list[Any] = []
            steps = [
                self._recorder.call(step, replaced, groups)
                if isinstance(step, Dispatch)
                else self._recorder.transfers(step, replaced)
                for step in program.entry.steps
            ]
            self.device.submit(before)
            runs = [time_steps(self.device, steps) for _ in range(max(1, repeat))]
            self.device.release_groups(len(groups))
            for slot, array in zip(updated, saved, strict=True):
                self._storage.write(slot, array)
        seconds = [min(times) for times in zip(*runs, strict=True)]
        return name_timings(self.artefact, program.entry, seconds)

    def sync(self) -> None:
        """Block until everything submitted has run."""
        self._check_open()
        self.device.sync()

    def _start(self, program: Program, inputs: Mapping[str, object]) -> Sequence[Command]:
        """Upload inputs and submit all of a run but the last commands; return those."""
        before, replaced = self._take_inputs(program, inputs)
        chunks = self._recording(program, replaced).chunks
        self.generation += 1
        self._storage.mark_written(program.entry.updates)
        for chunk in chunks[:-1]:
            self.device.submit([*before, *chunk])
            before = []
        return [*before, *chunks[-1]] if before else chunks[-1]

    def _program(self, entry: str, outputs: Iterable[str] | None) -> Program:
        self._check_open()
        key = entry, None if outputs is None else tuple(outputs)
        if key not in self._programs:
            found = find_entry(self.artefact, entry)
            self._programs[key] = plan_program(self.artefact, found, key[1])
        return self._programs[key]

    def _recording(self, program: Program, replaced: Mapping[int, Buffer]) -> Recording:
        key = program, tuple(sorted(replaced.items()))
        if key in self._recordings:
            self._recordings.move_to_end(key)
            return self._recordings[key]
        while len(self._recordings) >= _RECORDINGS:
            _, oldest = self._recordings.popitem(last=False)
            self._recorder.release(oldest)
        recording = self._recorder.record(program.entry, program.steps, replaced)
        self._recordings[key] = recording
        return recording

    # -- inputs -------------------------------------------------------------------------------

    def _take_inputs(
        self, program: Program, inputs: Mapping[str, object]
    ) -> tuple[list[Command], dict[int, Buffer]]:
        """Check and upload inputs; return copies to run first, and buffers that stand in."""
        entry = program.entry
        self._storage.require(program.parameters)
        check_names(entry.name, slot_types(entry.inputs), program.inputs, inputs)
        self._end_loans()
        before: list[Command] = []
        replaced: dict[int, Buffer] = {}
        uploads: list[tuple[Slot, np.ndarray]] = []
        for slot in entry.inputs:
            value = inputs.get(slot.name)
            if slot.name not in inputs:
                continue
            what = f"{entry.name}: input {slot.name!r}"
            if isinstance(value, DeviceArray) and value.device is self.device:
                self._take_device_array(entry, slot, what, value, before, replaced)
            else:
                uploads.append((slot, to_words(what, slot.type, value)))
        for slot, words in uploads:
            self._storage.write(slot, words)
        return before, replaced

    def _take_device_array(
        self,
        entry: Entry,
        slot: Slot,
        what: str,
        array: DeviceArray,
        before: list[Command],
        replaced: dict[int, Buffer],
    ) -> None:
        if array.type != slot.type:
            raise InputError(f"{what} is a device array {array.type}, and {slot.type} is needed")
        source, offset = array.place()
        own = self._storage.buffers[slot.buffer]
        if array.is_owned and slot.name in self._bindable[entry.name] and source.size >= own.size:
            replaced[slot.buffer] = source
            return
        if any(source is self._storage.buffers[each.buffer] for each in entry.inputs):
            # Uploads come before the copies of the run, and might hit what is copied.
            source, offset = self._lend(source, offset, slot), 0
        if slot.type.nbytes:
            before.append(Transfer(source, offset, own, slot.offset, slot.type.nbytes))

    def _lend(self, source: Buffer, offset: int, slot: Slot) -> Buffer:
        """Copy a tensor to a buffer that lives until the next run."""
        loan = self.device.create_buffer(f"{self.name}/{slot.name}", padded(slot.type))
        self._loans.append(loan)
        if slot.type.nbytes:
            self.device.submit([Transfer(source, offset, loan, 0, slot.type.nbytes)])
        return loan

    def _end_loans(self) -> None:
        for loan in self._loans:
            loan.close()
        self._loans = []

    def to_device(self, inputs: Mapping[str, object]) -> dict[str, DeviceArray]:
        """Upload arrays by the names of inputs; they stay valid until they are closed.

        Raises:
            InputError: a name, shape or element type fits no entry.
        """
        self._check_open()
        arrays: dict[str, DeviceArray] = {}
        words: list[tuple[Slot, np.ndarray]] = []
        for name, value in inputs.items():
            if isinstance(value, DeviceArray) and value.device is self.device:
                arrays[name] = value
                continue
            what = f"{self.name}: input {name!r}"
            host = as_array(what, value)
            slot = input_slot(self.artefact, name, host.shape)
            words.append((slot, to_words(what, slot.type, host)))
        for slot, array in words:
            # As large as the buffer that it may stand in for.
            size = 0 if slot.offset else self._storage.buffers[slot.buffer].size
            buffer = self.device.create_buffer(slot.name, max(size, padded(slot.type)))
            self.device.write(buffer, 0, array)
            place = Slot(slot.name, slot.type, -1, 0)
            arrays[slot.name] = DeviceArray(self.device, buffer, place)
        return {name: arrays[name] for name in inputs}

    # -- state --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Read all parameters and state, by the names that the model gives them."""
        with self._lock:
            self._check_open()
            return self._storage.state_dict()

    def load_state_dict(self, values: Mapping[str, object], strict: bool = True) -> None:
        """Write parameters and state: all of them or, after an error, none.

        Raises:
            InputError: a name is missing or unknown (only if strict), or a value does not fit.
        """
        with self._lock:
            self._check_open()
            self._storage.load_state_dict(values, strict)

    def read(self, name: str) -> np.ndarray:
        """Read one parameter, state or constant."""
        with self._lock:
            self._check_open()
            return self._storage.read([self._storage.slot(name)])[0]

    def write(self, name: str, value: object) -> None:
        """Write one parameter or state."""
        with self._lock:
            self._check_open()
            slot = self._storage.slot(name)
            self._storage.write(slot, to_words(f"{self.name}: {name!r}", slot.type, value))

    def shares(self, other: Executor, name: str) -> bool:
        """Tell whether a parameter or state is in the same memory for both."""
        return self._storage.shares(other._storage, name)

    def read_value(self, entry: str, name: str) -> np.ndarray:
        """Read what is now at the place of a graph value.

        With buffer reuse that is the value only until a later step writes the place again.
        """
        with self._lock:
            self._check_open()
            found = find_entry(self.artefact, entry)
            if name not in found.values:
                raise InputError(f"{entry} has no value {name!r} in memory")
            return self._storage.read([found.values[name]])[0]

    def write_value(self, entry: str, name: str, value: object) -> None:
        """Put something at the place of a graph value, for the next step to read."""
        with self._lock:
            self._check_open()
            found = find_entry(self.artefact, entry)
            if name not in found.values:
                raise InputError(f"{entry} has no value {name!r} in memory")
            slot = found.values[name]
            self._storage.write(slot, to_words(f"{entry}: {name!r}", slot.type, value))

    def _check_open(self) -> None:
        if self.generation < 0:
            raise ReleasedError(f"{self.name} was closed and can't be used any more")
        if self.device.is_lost:
            raise DeviceLostError(
                f"{self.name}: the device was lost, and the state of {self.name} with it\n"
                "  fix: compile or load again and load_state_dict() from a checkpoint"
            )
