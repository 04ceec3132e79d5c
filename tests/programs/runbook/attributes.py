"""Attributes that are not loaded."""

from contextlib import suppress

from entries import ORDER, cures, provokes
from shop.models import Order
from sqlalchemy import func
from sqlalchemy.orm import load_only, selectinload

LAZY = "is not available due to lazy='raise'"


@provokes("MissingGreenlet")
async def read_what_a_rollback_has_expired(database):
    async with database.write() as session:
        order = (await session.scalars(ORDER)).one()
        await session.rollback()
        assert order.customer


@provokes("MissingGreenlet")
async def read_what_the_query_left_out(database):
    async with database.write() as session:
        order = (await session.scalars(ORDER.options(load_only(Order.id)))).one()
        assert order.customer


@provokes("MissingGreenlet")
async def read_what_was_set_to_an_expression(database):
    async with database.write() as session:
        order = (await session.scalars(ORDER)).one()
        order.customer = func.lower("ADA")
        await session.flush()
        assert order.customer


@cures("MissingGreenlet")
async def refresh(database):
    async with database.write() as session:
        order = (await session.scalars(ORDER.options(load_only(Order.id)))).one()
        await session.refresh(order, ["customer"])
        assert order.customer == "ada"
        await session.rollback()
        await session.refresh(order, ["customer"])
        assert order.customer == "ada"
        order.customer = func.lower("ADA")
        await session.flush()
        await session.refresh(order, ["customer"])
        assert order.customer == "ada"


@provokes(LAZY)
async def read_a_relation_in_the_session(database):
    async with database.read() as session:
        assert (await session.scalars(ORDER)).one().lines


@provokes(LAZY)
async def read_a_relation_after_the_session(database):
    async with database.read() as session:
        order = (await session.scalars(ORDER)).one()
    assert order.lines


@cures(LAZY)
async def load_the_relation(database):
    async with database.read() as session:
        query = ORDER.options(selectinload(Order.lines))
        order = (await session.scalars(query)).one()
    assert order.lines == []
    async with database.write() as session:
        order = (await session.scalars(ORDER)).one()
        await session.refresh(order, ["lines"])
    assert order.lines == []


@provokes("DetachedInstanceError")
async def read_of_a_read_what_the_query_left_out(database):
    async with database.read() as session:
        order = (await session.scalars(ORDER.options(load_only(Order.id)))).one()
        assert order.customer


@provokes("DetachedInstanceError")
async def read_too_late_what_the_query_left_out(database):
    async with database.write() as session:
        order = (await session.scalars(ORDER.options(load_only(Order.id)))).one()
    assert order.customer


@provokes("DetachedInstanceError")
async def read_too_late_what_a_rollback_has_expired(database):
    async with database.write() as session:
        order = (await session.scalars(ORDER)).one()
        await session.rollback()
    assert order.customer


@provokes("DetachedInstanceError")
async def read_too_late_what_an_error_has_expired(database):
    with suppress(ZeroDivisionError):
        async with database.write() as session:
            order = (await session.scalars(ORDER)).one()
            assert 1 // 0
    assert order.customer


@cures("DetachedInstanceError")
async def load_in_time(database):
    async with database.read() as session:
        read = (await session.scalars(ORDER)).one()
    async with database.write() as session:
        written = (await session.scalars(ORDER)).one()
    assert read.customer == written.customer == "ada"
