from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.errors import errors_shown


def test_console_error_is_one_message_letter_by_letter() -> None:
    def script() -> None:
        import streamlit as st

        from dashboard.components.errors import errors_shown
        from engine.errors import WeightsError

        with errors_shown():
            raise WeightsError("my_model_ is *not* a model")
        st.write("and on")

    page = AppTest.from_function(script).run()
    assert [error.value for error in page.error] == [r"my\_model\_ is \*not\* a model"]
    assert page.markdown[0].value == "and on"


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), errors_shown():
        raise ZeroDivisionError
