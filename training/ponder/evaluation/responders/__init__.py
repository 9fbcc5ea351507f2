"""Who answers the questions of an evaluation."""
