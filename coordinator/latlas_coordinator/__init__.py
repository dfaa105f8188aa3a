"""The coordinator: plans measurements, schedules them on the fleet, keeps and serves results."""
