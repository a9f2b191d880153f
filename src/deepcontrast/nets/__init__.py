"""Networks: functions of plain numbers to modules that know their own halo and step."""
