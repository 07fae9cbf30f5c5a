"""What a volunteer's own commands print: text from facts, without a terminal framework."""
