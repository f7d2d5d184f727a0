"""Helpers for every room that know nothing of depth: files, disk, machine, threads, downloads, messages."""
