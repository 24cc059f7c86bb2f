"""The proof card: what was tried for one version, what was measured, what was chosen and why, as a page and as JSON."""

from gateway.report.card import Card, gather
from gateway.report.page import page
from gateway.report.style import HEADERS
from gateway.report.view import card_view

__all__ = ["HEADERS", "Card", "card_view", "gather", "page"]
