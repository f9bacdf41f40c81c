"""Runs of any pattern: how one is started, awaited, polled for, listed, read and cancelled."""
