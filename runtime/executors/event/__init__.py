"""The event-driven executor: exact inference whose cost follows the spikes."""

from unscan.runtime.executors.event.simulator import EventDriven

__all__ = ["EventDriven"]
