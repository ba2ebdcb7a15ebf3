"""Cohorts: hundreds of synthetic or real patients planned by protocol, resumable, on one machine or many."""
